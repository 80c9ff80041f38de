"""How fast, and with how many messages, devices agree on a plan without a leader.

    python examples/benchmarks/bench_agreement.py [--devices 3 8 32 64]

Production nodes under virtual time, 10 ms of latency each way and 10 to 50 Mbit/s, nothing lost. The cluster is idle:
it waits for more devices than there are, so that its plans contain no work and the debounce time is 2 s. Measured is
the time from an event (the last profile, the goodbye, the will at the broker) until the last member has activated the
plan that all activate, against the bound: debounce time and two message delays, after a power failure also the will's
way to the devices and the time that a probe waits. A message delay is the latency from device to device, and the time
in which a message of every device crosses the slowest link. Messages and bytes, headers included, are those that a
device sends from the event's cause (at the start: power on) until then.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable

import anyio
import attrs
from anyio.abc import TaskGroup
from control_plane import LATENCY_S, LINKS_MBPS, BenchCluster, SmallTask
from rich.console import Console
from rich.table import Table

from crowd.agreement.state import CHUNK_BYTES_MAX, Timing
from crowd.units import MEBIBYTE, SECOND_US, Channel, DeviceId
from devices.simulation.virtual_time import VirtualTimeLoop

MEMBERS_MIN = 1000
CONTROL_BYTES = 820
"""A profile with its headers."""
MESSAGES_MAX, BYTES_MAX = 30, 20 * 1024
"""What a device may send from power on until the first plan."""
TIMING = Timing()
DEBOUNCE_S, PROBE_S = TIMING.debounce_before_start_us / SECOND_US, TIMING.probe_timeout_us / SECOND_US
BUSY_S = 4 * min(1.0, CHUNK_BYTES_MAX / (min(LINKS_MBPS) * 125_000))
"""How much longer a suspect may take to answer: a chunk each way on its links and on those of who asks."""
WAIT_S = 20.0


@attrs.frozen(kw_only=True)
class DeviceMetrics:
    """What one event came to."""

    devices: int
    event: str
    took_s: float
    bound_s: float
    generations: int
    messages: tuple[float, int]
    """Sent by a device: the mean and the most."""
    sent_bytes: tuple[float, int]

    @property
    def kept(self) -> bool:
        few = self.messages[1] <= MESSAGES_MAX and self.sent_bytes[1] <= BYTES_MAX
        return self.took_s <= self.bound_s and few


class Experiment:
    """One cluster that lives through all events."""

    def __init__(self, devices: int) -> None:
        self.cluster = BenchCluster(devices, members_min=MEMBERS_MIN, task=SmallTask(samples=64, epochs_max=1))
        self.metrics: list[DeviceMetrics] = []
        self._generation = 0

    async def run(self) -> None:
        cluster = self.cluster
        first, last = cluster.devices[0], cluster.devices[-1]
        with cluster.listening():
            async with anyio.create_task_group() as tasks:
                await self._measure("all start", lambda: self._start_all(tasks), said=Channel.PROFILE)
                await self._measure("profile changes", lambda: first.free_memory(2048 * MEBIBYTE), said=Channel.PROFILE)
                await self._measure("leaves", last.switch_off, said=Channel.ALL, gone=last.name)
                await self._measure("joins", lambda: tasks.start_soon(last.live), said=Channel.PROFILE)
                await self._measure("fails", first.fail, gone=first.name)
                tasks.cancel_scope.cancel()

    def _start_all(self, tasks: TaskGroup) -> None:
        for device in self.cluster.devices:
            tasks.start_soon(device.live)

    async def _measure(
        self, event: str, cause: Callable[[], object], *, said: Channel | None = None, gone: DeviceId | None = None
    ) -> None:
        """`said`: with which message the event begins, the last of its kind; without one, with its cause."""
        cluster = self.cluster
        cluster.events.clear()
        cluster.network.sent.clear()
        caused_s = anyio.current_time()
        cause()
        await anyio.sleep(WAIT_S)
        members = {name for name in cluster.names if name != gone}
        active = [note for note in cluster.events if note.name == "plan_activated"]
        latest = {note.device: note for note in active}
        plans = {(note.fields["generation"], note.fields["plan"]) for note in latest.values()}
        assert latest.keys() == members, f"{event}: {sorted(members - latest.keys())} activate nothing"
        assert len(plans) == 1, f"{event}: no common plan, {plans}"
        until_s = max(note.time_s for note in latest.values())
        sent = [message for message in cluster.network.sent if message.time_s <= until_s]
        began_s = max((message.time_s for message in sent if message.channel is said), default=caused_s)
        delay_s = 2 * LATENCY_S + len(cluster.names) * CONTROL_BYTES / (min(LINKS_MBPS) * 125_000)
        messages, size = Counter[DeviceId](), Counter[DeviceId]()
        for message in sent:
            messages[message.device] += 1
            size[message.device] += message.size_bytes
        acked = [note.fields["generation"] for note in cluster.events if note.name == "plan_acknowledged"]
        before, self._generation = self._generation, max(acked)
        self.metrics.append(
            DeviceMetrics(
                devices=len(cluster.names),
                event=event,
                took_s=until_s - began_s,
                bound_s=DEBOUNCE_S
                + 2 * delay_s
                + (LATENCY_S + PROBE_S + BUSY_S + 2 * delay_s if event == "fails" else 0.0),
                generations=self._generation - before,
                messages=(messages.total() / len(members), max(messages.values())),
                sent_bytes=(size.total() / len(members), max(size.values())),
            )
        )


async def measure(devices: int) -> list[DeviceMetrics]:
    experiment = Experiment(devices)
    await experiment.run()
    return experiment.metrics


def table(metrics: list[DeviceMetrics]) -> Table:
    shown = Table(title="agreement on a plan, idle cluster")
    for heading in (
        "devices",
        "event",
        "took",
        "bound",
        "slack",
        "generations",
        "messages",
        "most",
        "bytes",
        "most",
        "",
    ):
        shown.add_column(heading, justify="left" if heading in ("event", "") else "right")
    for row in metrics:
        shown.add_row(
            str(row.devices),
            row.event,
            f"{row.took_s:.3f} s",
            f"{row.bound_s:.3f} s",
            f"{1000 * (row.bound_s - row.took_s):.0f} ms",
            str(row.generations),
            f"{row.messages[0]:.1f}",
            str(row.messages[1]),
            f"{row.sent_bytes[0]:,.0f}",
            f"{row.sent_bytes[1]:,}",
            "" if row.kept else "missed",
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description="How fast devices agree, and with how many messages.")
    parser.add_argument("--devices", type=int, nargs="+", default=[3, 8, 32, 64])
    metrics: list[DeviceMetrics] = []
    for devices in parser.parse_args().devices:
        metrics += anyio.run(measure, devices, backend_options={"loop_factory": VirtualTimeLoop})
    Console(width=120).print(table(metrics))
    return 0 if all(row.kept for row in metrics) else 1


if __name__ == "__main__":
    sys.exit(main())
