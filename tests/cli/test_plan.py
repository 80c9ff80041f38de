from pathlib import Path

import pytest

from crowd.cli.cluster import make_profiles, read_cluster
from crowd.cli.main import main
from crowd.planning.profile import Prefer, Share

CLUSTER = """
[cluster]
name = "flat"
prefer = "bytes"
[data]
partition = "iid"
[[device]]
name = "laptop"
kind = "laptop"
[[device]]
name = "pi"
kind = "raspberry-pi-3"
share = "never"
memory_mib = 256
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "flat.toml"
    path.write_text(CLUSTER)
    return path


def test_profiles_say_what_the_file_the_catalog_and_the_task_say(cluster: Path) -> None:
    laptop, pi = make_profiles(*read_cluster(cluster), task="digits", policy="fedavg", seed=7)
    assert (laptop.device, laptop.speed_kflops, laptop.share) == ("laptop", 52_000_000, Share.RAW)
    assert (pi.device, pi.speed_kflops, pi.memory_bytes, pi.share) == ("pi", 1_900_000, 256 << 20, Share.NEVER)
    assert (pi.uplink_bytes_s, pi.prefer, pi.policy, pi.seed) == (3_125_000, Prefer.BYTES, "fedavg", 7)
    assert laptop.samples + pi.samples == 1437
    assert laptop.task == pi.task


@pytest.mark.parametrize("policy", ["crowd_learning", "fedavg", "ship_once"])
def test_every_policy_says_who_trains_what_and_why(
    cluster: Path, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(cluster), "--task", "digits", "--policy", policy]) == 0
    output = capsys.readouterr().out
    assert f"flat, digits, {policy}" in output
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in output.splitlines() if line.startswith("│")}
    assert [rows[device][0].strip() for device in ("laptop", "pi")] == ["52.0", "1.9"]
    assert sum(int(row[1]) for row in rows.values()) == 1437
    assert rows["pi"][3].strip() == "-", "it shares nothing and so lends nothing"
    assert "why: " in output


def test_idle_samples_have_a_line_with_their_device_and_the_reason(
    cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(cluster), "--task", "digits", "--policy", "ship_once"]) == 0
    assert "\nidle: 718 samples of pi, they may not leave it\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
        (["--policy", "fedavgg"], "unknown policy 'fedavgg'; did you mean 'fedavg'?"),
        (["--task", "nowhere:task"], "there is no module 'nowhere'"),
    ],
)
def test_what_is_not_installed_is_bad_input(
    cluster: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(cluster), *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_an_unknown_kind_is_named_with_its_file(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.write_text(CLUSTER.replace("raspberry-pi-3", "raspberry-pi-33"))
    assert main(["plan", str(cluster)]) == 2
    assert f"{cluster}: device 'pi': unknown kind 'raspberry-pi-33'; did you mean" in capsys.readouterr().err
