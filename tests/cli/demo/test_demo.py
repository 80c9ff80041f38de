import io
import re
import signal
import subprocess
import sys

import anyio
import psutil
import pytest
from rich.console import Console

from crowd.cli.demo.command import compare
from crowd.cli.demo.device import STATUSES, DeviceStatus
from crowd.cli.demo.launch import run_processes
from crowd.cli.demo.run import DemoRun
from crowd.cli.demo.screen import comparison, final_screen
from crowd.cli.demo.setup import DEVICES, DemoDevice, DemoSetup
from crowd.cli.main import main
from crowd.errors import BadConfig
from crowd.run_record import RunGoal
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.alone

FAST = (
    DemoDevice(name="fast", speed_kflops=3_000_000, mbps=1000.0),
    DemoDevice(name="slow", speed_kflops=1_000_000, mbps=1000.0),
)


def setup(name: str) -> DemoSetup:
    return DemoSetup(devices=FAST, cluster=name)


def run(policy: str, *, elapsed_s: float, reached: bool, traffic_bytes: int = 1_000) -> DemoRun:
    finished = DemoRun(setup("home"), policy)
    for device in FAST:
        finished.see(
            DeviceStatus(
                device=device.name,
                elapsed_s=elapsed_s,
                bytes_up=traffic_bytes,
                round=3,
                value=0.5,
                goal=RunGoal(metric="accuracy", better="higher", target=0.95),
                finished=reached,
                reached=reached,
                digest="ab" if reached else None,
            )
        )
    return finished


def cells(runs: list[DemoRun]) -> list[list[str]]:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison(runs))
    lines = [line for line in console.export_text().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_the_demo_s_devices_differ_25_fold_however_many_take_part() -> None:
    for count in range(2, len(DEVICES) + 1):
        devices = DemoSetup.of(count, cluster="home").devices
        assert len({device.name for device in devices}) == count
        assert devices[0].speed_kflops == 25 * devices[-1].speed_kflops


@pytest.mark.parametrize("count", ["1", "9"])
def test_too_few_or_too_many_devices_are_bad_input(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--devices", count]) == 2
    assert f"--devices: expected 2 to 8, found {count}" in capsys.readouterr().err


def test_processes_need_more_than_a_broker_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--broker", "memory://home"]) == 2
    assert "processes share no memory" in capsys.readouterr().err


def test_a_policy_that_was_stopped_is_a_lower_bound_and_its_bytes_no_comparison() -> None:
    rows = cells(
        [
            run("crowd_learning", elapsed_s=2.0, reached=True),
            run("ship_once", elapsed_s=3.0, reached=True, traffic_bytes=4_000),
            run("fedavg", elapsed_s=16.0, reached=False),
        ]
    )
    assert rows == [
        ["crowd", "2.0 s", "1.00", "2.0 kB", "1.00", "3", "50.0%"],
        ["ship once", "3.0 s", "1.50", "8.0 kB", "4.00", "3", "50.0%"],
        ["FedAvg", "> 16.0 s", "> 8.00", "-", "-", "3", "50.0%"],
    ]


def test_news_survive_the_way_from_another_process() -> None:
    news = DeviceStatus(device="a", round=3, value=0.5, why="2 train", samples_trained=7, digest="ab")
    assert STATUSES.from_line(STATUSES.to_line(news)) == news


def test_without_a_terminal_a_comparison_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    runs = anyio.run(lambda: compare(setup("plain"), Console(width=120), policies=("crowd_learning", "ship_once")))
    Console(width=120).print(final_screen(runs))
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "crowd: round 1, " in output
    assert "crowd: the same model on all 2 devices: " in output
    records = [run.record() for run in runs]
    assert [(run["policy"], run["reached"], run["task"]) for run in records] == [
        ("crowd_learning", True, "digits"),
        ("ship_once", True, "digits"),
    ]
    for run in records:
        assert set(run["devices"]) == {"fast", "slow"}
        assert run["final_value"] >= run["target"] == 0.95
        assert 0 < run["bytes_up"] < run["bytes_total"] == run["bytes_to_target"]
        assert run["curve"] == sorted(run["curve"], key=lambda point: point[0])
        assert len(set(run["model_digests"].values())) == 1


def test_processes_on_a_broker_end_with_one_model_and_leave_nothing_on_it() -> None:
    with Mosquitto() as broker:
        place = setup("processes")
        (run,) = anyio.run(
            lambda: compare(place, Console(file=io.StringIO()), broker=broker.url, policies=("crowd_learning",))
        )
        assert run.reached
        assert all(re.fullmatch("[0-9a-f]{32}", str(digest)) for digest in run.digests)
        assert len(run.digests) == 1
        assert retained(broker) == b""


def retained(broker: Mosquitto) -> bytes:
    command = ["mosquitto_sub", "-h", broker.host, "-p", str(broker.port), "-t", "crowd/#", "--retained-only"]
    return subprocess.run([*command, "-W", "1"], capture_output=True, check=False).stdout


def test_a_process_that_cannot_work_is_named_and_the_others_end() -> None:
    async def run() -> None:
        await run_processes(setup("denied"), "crowd_learning", lambda news: None, broker=broker.url)

    with Mosquitto(acl="topic read crowd/#\n") as broker, pytest.raises(ExceptionGroup) as caught:
        anyio.run(run)
    refused, others = caught.value.split(BadConfig)
    assert others is None
    assert refused is not None
    assert "allow writing it in the broker's access list" in str(refused.exceptions[0])


def test_a_demo_does_not_wait_for_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--devices", "2", "--broker", "mqtt://127.0.0.1:1"]) == 2
    assert "is the broker running?" in capsys.readouterr().err.splitlines()[-1]


def test_an_interrupted_demo_ends_its_processes() -> None:
    with Mosquitto() as broker:
        command = "import sys; from crowd.cli.main import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", command, "demo", "--devices", "2", "--broker", broker.url],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert any("round 1," in line for line in process.stdout)
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert not any(worker.is_running() for worker in workers)
        assert retained(broker) == b""
