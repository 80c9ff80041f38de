"""The pure parts of `examples/benchmarks/peers`; Flower itself is tried by `make peers`, which installs it."""

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs
import pytest

from crowd.config.cluster_file import ClusterConfig, DeviceConfig
from crowd.errors import BadConfig
from crowd.experiment.experiment import Experiment
from crowd.experiment.subprocesses import started
from crowd.run_record import RunGoal
from crowd.units import device_id
from devices.lab import messages
from devices.lab.messages import Go, Ready

PEERS = Path(__file__).parents[2] / "examples" / "benchmarks" / "peers"


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are imported by name, as they import each other."""
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.syspath_prepend(str(PEERS / "flower_app"))


def experiment(**changes: Any) -> Experiment:
    devices = tuple(
        DeviceConfig(name=name, train_gflops=1.0, memory_mib=512, uplink_mbps=20.0, downlink_mbps=20.0, latency_ms=0.0)
        for name in ("a", "b")
    )
    plain = Experiment(
        cluster=ClusterConfig(name="two", devices=devices),
        kinds={device_id(device.name): device.resolve({}) for device in devices},
        task="digits",
        policy="fedavg",
        seed=0,
    )
    return attrs.evolve(plain, **changes)


GOAL = RunGoal(metric="accuracy", better="higher", target=None)


def run(policy: str, **changes: Any) -> dict[str, Any]:
    metrics = {
        "policy": policy,
        "rounds": 4,
        "metric": "accuracy",
        "final_value": 0.951,
        "curve": [[3.0, 0.9, 10], [8.0, 0.951, 20]],
        "reached": True,
        "seconds_to_target": 8.1,
        "bytes_total": 4_000_000,
    }
    return metrics | changes


def test_runs_are_compared_by_their_rounds_times_and_bytes() -> None:
    from flower import rows

    stopped = run("flower-fedavg", rounds=0, reached=False, final_value=None, curve=[], bytes_total=0)
    assert rows([run("fedavg"), stopped]) == {
        "rounds": ["4", "0"],
        "accuracy": ["95.1%", "-"],
        "time per round": ["2.0 s", "0 ms"],
        "time to target": ["8.1 s", "not reached"],
        "bytes per round": ["1.0 MB", "0 B"],
        "bytes": ["4.0 MB", "0 B"],
    }


def test_without_flower_the_user_is_told_how_to_get_it(tmp_path: Path) -> None:
    from flower_lab import check_flower

    with pytest.raises(BadConfig, match="run 'make peers' first"):
        check_flower(tmp_path / "bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "flower-superlink").touch()
    check_flower(tmp_path / "bin")


def test_devices_that_fail_are_not_for_flower() -> None:
    from flower_lab import check_trial

    whole = experiment()
    check_trial(whole)
    first, second = whole.cluster.devices
    failing = attrs.evolve(second, fails_at_s=(5.0,))
    with pytest.raises(BadConfig, match="device 'b': fails_at_s"):
        check_trial(attrs.evolve(whole, cluster=attrs.evolve(whole.cluster, devices=(first, failing))))


def test_a_task_that_the_server_cannot_evaluate_is_not_for_flower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flower_lab import check_trial

    code = (
        "import crowd.tasks.digits as digits, attrs\n"
        "from crowd.tasks.partition import Partition\n"
        "def own(name): return attrs.evolve(digits.task(name, Partition()), evaluation=None)\n"
    )
    (tmp_path / "unevaluated.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadConfig, match="no evaluation set in common"):
        check_trial(experiment(task="unevaluated:own"))


def test_bad_input_is_one_line_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    from flower import main

    assert main([str(PEERS / "two.toml"), "--task", "digitz"]) == 2
    assert capsys.readouterr().err.splitlines() == ["crowd: unknown task 'digitz'; did you mean 'digits'?"]


@pytest.mark.anyio
async def test_news_of_several_processes_come_through_one_pipe_line_by_line(tmp_path: Path) -> None:
    from flower_lab import lines_of, make_pipe

    pipe = make_pipe(tmp_path / "news")
    heard: list[str] = []

    async def hear() -> None:
        async for line in lines_of(pipe):
            heard.append(line)
            if len(heard) == 4:
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hear)
        for word in ("one", "two"):
            code = f"for n in '12': open({str(pipe)!r}, 'a').write({word!r} + n + '\\n')"
            async with started([sys.executable, "-c", code], name=word) as process:
                await process.expect_success()
    assert heard == ["one1", "one2", "two1", "two2"]
    assert not [name for name in os.listdir("/proc/self/fd") if _is(name, pipe)], "and is closed"


def _is(descriptor: str, path: Path) -> bool:
    link = Path("/proc/self/fd") / descriptor
    return link.is_symlink() and os.readlink(link) == str(path)


@pytest.mark.anyio
async def test_what_a_program_said_last_tells_why_it_ended() -> None:
    from flower_lab import _Program

    async with started(["sh", "-c", "echo ready; echo no room left; exit 3"], name="x") as process:
        program = _Program(process, "flower-x of a")
        await program.wait_for("ready")
        await program.follow()
        assert str(program.ended()) == "flower-x of a has ended before the run did:\nready\nno room left"


@pytest.mark.anyio
async def test_a_program_that_ends_before_it_is_ready_is_an_error() -> None:
    from flower_lab import _Program

    async with started(["sh", "-c", "echo no room left"], name="x") as process:
        with pytest.raises(RuntimeError, match="no room left"):
            await _Program(process, "flower-x of a").wait_for("ready")


@pytest.mark.anyio
async def test_a_client_trains_when_the_lab_has_slowed_its_device_and_no_earlier(tmp_path: Path) -> None:
    from flower_lab import BOTH_ENDS, lines_of, make_pipe
    from flower_peer.part import NEWS, await_orders
    from flower_peer.part import ORDERS as ORDERS_KEY

    config = {NEWS: str(make_pipe(tmp_path / "news")), ORDERS_KEY: str(make_pipe(tmp_path / "orders"))}
    orders = os.open(config[ORDERS_KEY], BOTH_ENDS)
    waited = anyio.Event()

    async def wait() -> None:
        await anyio.to_thread.run_sync(await_orders, config)
        waited.set()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            news = lines_of(Path(config[NEWS]))
            assert messages.REPORTS.from_line(await anext(news)) == Ready(goal=GOAL)
            assert not waited.is_set()
            os.write(orders, f"{messages.ORDERS.to_line(Go())}\n".encode())
        await news.aclose()
        with pytest.raises(BlockingIOError):
            os.read(orders, 1)  # the order was taken
    finally:
        os.close(orders)
    assert waited.is_set()


def test_a_client_that_nobody_slows_waits_for_nothing(tmp_path: Path) -> None:
    from flower_peer.part import NEWS, await_orders

    await_orders({NEWS: str(tmp_path / "news")})
    assert not (tmp_path / "news").exists()
