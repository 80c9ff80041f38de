"""Every cluster file that comes with the project can be read, and every policy has a plan for it."""

import functools
from pathlib import Path

import attrs
import pytest

from crowd.cli.cluster import load_policy, make_profiles, read_cluster
from crowd.cli.main import main
from crowd.planning.check import violations
from crowd.planning.policy import decide
from crowd.planning.profile import Profile, Share
from tests.agreement.strategies import POLICIES

CLUSTERS = sorted((Path(__file__).parents[2] / "examples" / "clusters").glob("*.toml"))


@functools.cache
def profiles_of(path: Path) -> tuple[Profile, ...]:
    return make_profiles(*read_cluster(path), task="digits", policy="fedavg")


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_a_cluster_is_planned_for_without_violation(path: Path, policy: str) -> None:
    profiles = tuple(attrs.evolve(profile, policy=policy) for profile in profiles_of(path))
    plan = decide(profiles, {policy: load_policy(policy)})
    assert plan.has_work
    assert violations(plan, profiles) == ()


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_a_file_says_what_it_tests_and_bears_its_cluster_s_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert path.read_text().startswith("# ")
    assert main(["plan", str(path), "--task", "digits"]) == 0
    assert f"{path.stem}, digits, crowd_learning" in capsys.readouterr().out


def test_in_tiny_memory_two_devices_cannot_train_wide() -> None:
    profiles = wide("tiny-memory")
    plan = decide(profiles, {"fedavg": load_policy("fedavg")})
    assert violations(plan, profiles) == ()
    assert [idle.device for idle in plan.idle] == ["doorbell", "thermostat"]


def test_in_private_cameras_no_picture_leaves_a_camera() -> None:
    profiles = profiles_of(next(path for path in CLUSTERS if path.stem == "private-cameras"))
    shares = {profile.device: profile.share for profile in profiles if profile.share is not Share.RAW}
    assert sorted(share.value for share in shares.values()) == ["features", "features", "never"]
    plan = decide(
        tuple(attrs.evolve(profile, policy="crowd_learning") for profile in profiles),
        {"crowd_learning": load_policy("crowd_learning")},
    )
    assert not [each for each in plan.assignments if each.lender in shares and each.trainer != each.lender]


def wide(stem: str) -> tuple[Profile, ...]:
    """The profiles for the task `wide`, from those for `digits`: its images need not be there."""
    path = next(path for path in CLUSTERS if path.stem == stem)
    profiles = profiles_of(path)
    first, *others = profiles[0].task.modules
    grown = attrs.evolve(first, elements=20_037_642 - sum(module.elements for module in others))
    task = attrs.evolve(profiles[0].task, state_elements=20_037_642, modules=(grown, *others))
    return tuple(attrs.evolve(profile, task=task) for profile in profiles)
