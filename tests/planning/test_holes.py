"""The holes that earlier drafts of the protocol had (design, end of section 4), put back one at a time: each is caught.

Scenarios are tried in order of their seeds until one shows the hole. The same scenario passes with the hole closed, so
it is the hole that is caught and not the scenario that is impossible.
"""

import inspect
import random
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from crowd.actors.rounds import Rounds
from crowd.learning.feedback import Feedback
from crowd.learning.merge import Deadlines
from crowd.planning import agreement
from crowd.planning.standing import State
from crowd.units import SECOND_US
from tests.learning import test_merge
from tests.planning import test_agreement
from tests.planning.cluster_model import Device, Fault, Scenario, Violation
from tests.planning.test_agreement import expect_agreement, run_with_faults

SCENARIOS_MAX = 40
KINDS = ["crash", "cut", "slow", "deaf", "broker", "update", "stale_will"]


def scenario_of(seed: int) -> Scenario:
    """A cluster and its faults, drawn from one seed."""
    draw = random.Random(seed)
    devices = draw.randint(3, 6)
    faults = tuple(
        Fault(
            at_us=draw.randint(3, 60) * SECOND_US + draw.randrange(SECOND_US),
            kind=draw.choice(KINDS),
            device=draw.randrange(devices),
            lasts_us=draw.choice([SECOND_US // 2, 3 * SECOND_US, 10 * SECOND_US, 25 * SECOND_US]),
        )
        for _ in range(draw.randint(3, 8))
    )
    return Scenario(
        devices=devices,
        seed=seed,
        loss_permille=draw.choice([0, 20, 100, 250]),
        duplicate_permille=draw.choice([0, 50, 200]),
        delay_max_us=draw.choice([5_000, 50_000, 400_000]),
        faults=faults,
    )


def run_scenario(seed: int) -> None:
    expect_agreement(run_with_faults(scenario_of(seed)))


def rewrite(monkeypatch: pytest.MonkeyPatch, owner: ModuleType | type, name: str, old: str, new: str) -> None:
    """Replace `old` by `new` in the source of a function for the length of one test."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{name} no longer contains {old!r} once"
    namespace: dict[str, Any] = {}
    exec(compile(source.replace(old, new), f"<{name} with a hole>", "exec"), function.__globals__, namespace)
    monkeypatch.setattr(owner, name, namespace[name])


def ack_without_freezing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "frozen", property(lambda state: state.active is None))
    monkeypatch.setattr(Rounds, "freeze", lambda rounds: None)


def ties_in_the_most_advanced_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(
        monkeypatch,
        agreement,
        "_activate",
        "max(ack.progress for ack in acks.values())",
        "max((ack.progress for ack in acks.values()), key=lambda progress: progress.round)",
    )


def back_under_the_old_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "draw_boot", lambda device: device.name.encode())


def residual_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(monkeypatch, Feedback, "commit", "left if named else carried", "carried")


HOLES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "an ack that does not freeze the old generation": ack_without_freezing,
    "ties in the most advanced round": ties_in_the_most_advanced_round,
    "a device back without its disk under its old life": back_under_the_old_life,
    "a residual sent again after its slice was merged": residual_sent_again,
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_put_back_is_caught(hole: str) -> None:
    for seed in range(SCENARIOS_MAX):
        with pytest.MonkeyPatch.context() as monkeypatch:
            HOLES[hole](monkeypatch)
            try:
                run_scenario(seed)
            except Violation as violation:
                print(f"{hole}: caught by scenario {seed + 1}: {violation}")
                break
    else:
        pytest.fail(f"{SCENARIOS_MAX} scenarios did not show it")
    run_scenario(seed)  # with the hole closed


def test_waiting_for_ever_for_a_member_that_never_acks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_missing_acks", lambda state: ())
    with pytest.raises(AssertionError):
        test_agreement.test_a_living_device_that_never_acks_is_buried_and_returns()


def test_a_cut_off_device_that_buries_everyone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "echoing", property(lambda state: True))
    with pytest.raises(AssertionError):
        test_agreement.test_a_cut_off_device_buries_nobody()


def test_a_deadline_that_shuts_out_a_slightly_slower_device_for_ever_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    # with regular arrivals the median absolute deviation is nothing, and the median alone would be the deadline
    rewrite(monkeypatch, Deadlines, "deadline_us", "max(mad_us, median_us // 4)", "mad_us")
    with pytest.raises((AssertionError, ExceptionGroup)):
        test_merge.test_a_regular_device_within_half_of_the_median_is_never_shut_out_for_ever()
