"""`Lab`: what of it is arithmetic and text, and real clusters of two processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from structlog.testing import capture_logs

from crowd.config.cluster_file import ClusterConfig, DeviceConfig
from crowd.errors import BadConfig
from crowd.experiment.experiment import Experiment, RoundReport
from crowd.experiment.metering import Span
from crowd.experiment.plan_summary import PlanSummary
from crowd.ports import Traffic
from crowd.units import device_id
from devices.lab import cgroups, netns, sandbox
from devices.lab.backend import ENVELOPE_S, Core, Lab, measure, slower_by, warn_if_busy, without_latency
from devices.lab.messages import ORDERS, REPORTS, Advanced, Computed, Go, Measure, Told, Working
from devices.lab.netns import Shape, parse_counters
from devices.lab.programs import find_program

pytestmark = pytest.mark.alone


def device(name: str, **changes: Any) -> DeviceConfig:
    common = {"train_gflops": 0.5, "memory_mib": 512, "uplink_mbps": 20.0, "downlink_mbps": 20.0, "latency_ms": 5.0}
    return DeviceConfig(name=name, **(common | changes))


def experiment(*devices: DeviceConfig, **values: Any) -> Experiment:
    kinds = {device_id(device.name): device.resolve({}) for device in devices}
    cluster = ClusterConfig(name="two", devices=devices)
    plain = Experiment(cluster=cluster, kinds=kinds, task="digits", policy="fedavg", seed=0, rounds_max=2)
    return attrs.evolve(plain, **values)


def left_behind() -> set[str]:
    """Names of all that any lab has made."""
    hierarchies = sandbox.check_machine()
    return netns.namespaces(prefix=sandbox.PREFIX) | cgroups.groups(hierarchies, prefix=sandbox.PREFIX)


# --- how a cluster is made to fit -------------------------------------------------------------------------------------


def test_a_cluster_that_this_machine_can_play_is_left_as_fast_as_it_is() -> None:
    assert slower_by([1000, 500], one_kflops=2000, cores=2) == 1.0


def test_a_cluster_that_is_too_fast_is_slowed_until_it_fits() -> None:
    assert slower_by([100_000, 11_000], one_kflops=2000, cores=2) == 83.4, "one device has 0.6 of a processor at most"
    assert slower_by([100_000, 100_000, 100_000], one_kflops=2000, cores=2) == 125, "of all processors 0.6"


def test_a_device_too_slow_for_linux_is_bad_input() -> None:
    with pytest.raises(BadConfig, match=r"the slowest device would get 0\.0299%"):
        slower_by([100_000, 50], one_kflops=1000, cores=2)


def test_a_lab_s_cluster_is_that_of_the_file_without_latency() -> None:
    asked = experiment(device("fast", train_gflops=8.0, speed_schedule=((10.0, 0.2),), fails_at_s=(20.0,)))
    fitting = without_latency(asked)
    (of,), kind = fitting.cluster.devices, fitting.kinds[device_id("fast")]
    assert kind == attrs.evolve(asked.kinds[device_id("fast")], latency_ms=0.0)
    assert of == attrs.evolve(asked.cluster.devices[0], latency_ms=0.0), "the file would say the same"


@pytest.mark.parametrize(("load", "busy"), [(0.4, False), (0.6, True)])
def test_a_machine_that_has_something_else_to_do_is_warned_of(
    load: float, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    with capture_logs() as logs:
        warn_if_busy(2)
    assert [entry["event"] for entry in logs] == ["machine_is_busy"] * busy


def test_a_simulation_beside_a_lab_charges_messages_as_they_are_here() -> None:
    """A message takes `envelope_s / ENVELOPE_S` of the stated time; as training that is as much less or more."""
    assert Core(kflops=20_000, envelope_s=ENVELOPE_S).stated_kflops == 20_000
    assert Core(kflops=20_000, envelope_s=ENVELOPE_S / 4).stated_kflops == 5_000


def test_links_that_lose_packets_are_no_lab_s_business() -> None:
    with pytest.raises(BadConfig, match="device 'b': loss: the lab loses no packets"):
        Lab().scale(experiment(device("a"), device("b", loss=0.1)))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_half_duplex_link_has_one_rate() -> None:
    with pytest.raises(BadConfig, match="half_duplex"):
        Shape(uplink_bytes_s=1, downlink_bytes_s=2, half_duplex=True)


def test_the_bytes_of_a_link_are_those_of_its_packets_without_their_frames() -> None:
    text = "Inter-| Receive\n lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 1514 1 0 0 0 0 0 0 132 2 0 0 0 0 0 0\n"
    assert parse_counters(text) == Traffic(up_bytes=132 - 2 * 14, down_bytes=1500)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_orders_and_news_come_through_a_pipe_as_they_were() -> None:
    advanced = Advanced(
        round=3,
        value=None,
        loss=0.25,
        bytes_up=1,
        bytes_down=2,
        elapsed_s=0.5,
        finished=False,
        digest="ab",
        samples_trained=7,
        generations=1,
    )
    planned = PlanSummary(
        why="so", encoding="float32", round_us=7, samples=(("a", 1), ("b", 2)), slices=(("a", 3),), moved=0
    )
    computed = Computed(spans=(Span(began_s=0.0, ended_s=1.0, flops=5),))
    for news in (advanced, computed, Working(plan=planned), Working(plan=None), Told(speed_kflops=5)):
        assert REPORTS.from_line(REPORTS.to_line(news)) == news
    for order in (Measure(duration_s=2.0), Go()):
        assert ORDERS.from_line(ORDERS.to_line(order)) == order


# --- machines that cannot be a lab ------------------------------------------------------------------------------------


def test_without_root_the_lab_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BadConfig, match="the lab needs root"):
        Lab().scale(experiment(device("a"), device("b")))


def test_elsewhere_than_on_linux_the_lab_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BadConfig, match="the lab needs Linux, found darwin"):
        sandbox.check_machine()


def test_a_program_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(BadConfig, match=r"needs 'no-such-program'.*install the package nothing"):
        find_program("no-such-program", package="nothing")


def test_programs_are_found_where_the_user_s_own_path_has_no_system_directories(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadConfig, match="'ip netns pids no-such-place' failed"):
        netns.processes("no-such-place")


# --- real processes: as root, on a machine whose lines above say nothing ----------------------------------------------


def test_two_processes_train_one_model_over_links_whose_bytes_both_count_alike() -> None:
    """One of them holds the broker; the other slows down, has a radio link, and fails before the work begins."""
    reported: list[RoundReport] = []
    radio = device("radio", half_duplex=True, speed_schedule=((3.0, 0.8),), fails_at_s=(0.5,), returns_at_s=(1.0,))
    with capture_logs() as logs:
        outcome = Lab().run(experiment(device("host", broker=True), radio), reported.append)
    assert [entry["event"] for entry in logs if entry.get("device") == "radio"] == ["device_failed", "device_returned"]
    assert [news.point.round for news in reported] == [1, 2]
    host, other = outcome.devices["host"], outcome.devices["radio"]
    assert host.digest == other.digest is not None
    assert outcome.counted_bytes is not None
    assert outcome.counted_bytes["radio"] == pytest.approx(other.bytes_up + other.bytes_down, rel=0.25)
    assert outcome.told_kflops is not None
    assert all(told and min(told) > 0 for told in outcome.told_kflops.values())
    assert [[name for name, _ in planned.samples] for planned in outcome.plans] == [["host", "radio"]]
    assert not any(name.startswith(sandbox.owner_name(os.getpid())) for name in left_behind())


def test_nodes_of_a_cluster_that_is_slowed_know_nothing_of_it() -> None:
    """Twice as fast as two processors: nodes that told real time would find half of their speed, or less."""
    lab = Lab()
    core = anyio.run(measure, experiment(device("a")), 2)
    speed_kflops = 2 * core.kflops
    fast = [device(name, train_gflops=speed_kflops / 1e6) for name in ("a", "b")]
    scale = lab.scale(experiment(*fast))
    assert scale.slower > 2
    assert scale.experiment.core_kflops == pytest.approx(core.stated_kflops, rel=0.5)
    outcome = lab.run(scale.experiment, lambda point: None)
    assert outcome.told_kflops is not None
    for each in fast:
        assert outcome.told_kflops[each.name][0] > 0.6 * speed_kflops


@pytest.fixture
def dead_lab() -> str:
    """All that a lab makes, made by a process that was killed; a process of its own is still there."""
    code = (
        "import subprocess, sys; from devices.lab.sandbox import *\n"
        "site = Site(check_machine()); site.__enter__(); site.net.join('a', None)\n"
        "child = subprocess.Popen(site.net.command('a', 'sleep', '600'), stdout=subprocess.DEVNULL)\n"
        "site.group('a').add(child.pid)\n"
        "print(owner_name(os.getpid()), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return name


def test_what_a_killed_lab_left_behind_is_gone_with_the_next(dead_lab: str) -> None:
    hierarchies = sandbox.check_machine()
    (pid,) = cgroups.processes(hierarchies, dead_lab)
    assert {name for name in left_behind() if name.startswith(dead_lab)} == {
        dead_lab,
        f"{dead_lab}-_hub",
        f"{dead_lab}-a",
    }
    sandbox.remove_leftovers(hierarchies)
    assert not any(name.startswith(dead_lab) for name in left_behind())
    words = Path(f"/proc/{pid}/cmdline")
    assert not (words.exists() and words.read_bytes()), "nobody but a parent that has died reaps it: it may be a zombie"
    assert not list(Path("/tmp").glob(f"{dead_lab}*"))


def test_what_a_living_lab_has_made_stays() -> None:
    hierarchies = sandbox.check_machine()
    with sandbox.Site(hierarchies):
        sandbox.remove_leftovers(hierarchies)
        assert any(name.startswith(sandbox.owner_name(os.getpid())) for name in left_behind())
    assert not any(name.startswith(sandbox.owner_name(os.getpid())) for name in left_behind())
