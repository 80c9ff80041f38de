"""What may travel, what may be kept, and what may be complained of.

Layout: `Wire` (no raw samples from who does not share them), `Bounds` (memory and mailboxes), `Logs` (nothing that was
not provoked).
"""

from collections import Counter
from collections.abc import Mapping

import anyio
import structlog

from crowd.actors.planner import decisions
from crowd.actors.trainer import backlog, merged_parts
from crowd.planning.profile import Share
from crowd.ports import Delivery
from crowd.protocol import strict
from crowd.protocol.codec import decode
from crowd.protocol.messages import AckMessage, Message, Offer, SampleNames, Samples
from crowd.units import Channel, DeviceId
from devices.simulation.virtual_time import PROCESS
from tests.simulation.checks import Findings

MAILBOX_MAX = 512
"""Half of what a mailbox takes: a healthy device is never near the end of its own."""
URGENT_MAX = 512
"""Small messages that wait for a slow link."""
MESSAGE_BYTES_MAX = 300_000

EXPECTED = frozenset(
    {
        "broker_lost",
        "checkpoint_not_saved",
        "checkpoint_not_used",
        "contribution_out_of_proportion",
        "device_evicted",
        "device_left_out",
        "former_life_heard",
        "inbound_messages_dropped",
        "device_suspended",
        "exchange_held_up",
        "life_not_saved",
        "messages_refused",
        "round_held_up",
        "trainer_absent",
        "training_stands_still",
        "transfer_failed",
        "waiting_for_broker",
    }
)
"""Warnings of what the faults provoke; everything else, and every error, is a finding."""
REFUSED_EXPECTED = frozenset({"duplicate", "planner_busy"})


class Wire:
    """Reads along what devices publish."""

    def __init__(self, findings: Findings, shares: Mapping[DeviceId, Share]) -> None:
        self._findings = findings
        self._shares = shares
        self.messages: Counter[DeviceId] = Counter()

    def saw(self, device: DeviceId, delivery: Delivery) -> None:
        self.messages[device] += 1
        address = delivery.address
        if len(delivery.payload) > MESSAGE_BYTES_MAX:
            self._findings.add(f"{device} published {len(delivery.payload)} bytes in one message")
        if address.source != device:
            self._findings.add(f"{device} published as {address.source}")
        if self._shares[device] is Share.RAW or address.channel not in (Channel.TO, Channel.ALL):
            return
        match _message_in(delivery):
            case Offer(cargo=Samples() | SampleNames()):
                self._findings.add(
                    f"S4: {device} sent raw samples, or their names, to {address.destination}, but does not share them"
                )
            case _:
                pass


def is_promise(delivery: Delivery) -> bool:
    """Whether a device gives an ack in this, to all or to one."""
    channel = delivery.address.channel
    return channel is Channel.ACK or (channel is Channel.TO and isinstance(_message_in(delivery), AckMessage))


def _message_in(delivery: Delivery) -> Message:
    return decode(strict.load_plain(delivery.payload)[7])


class Bounds:
    """Everything that a node keeps has an end."""

    def __init__(self, findings: Findings, devices: int) -> None:
        """In a cluster of so many."""
        self._findings = findings
        self._most = {
            **{f"messages for the {actor}": MAILBOX_MAX for actor in ("planner", "trainer", "data mover", "profiler")},
            "urgent messages": URGENT_MAX,
            "plans": decisions.DECISIONS_MAX,
            "acks": devices,
            "tombstones": devices,
            "early messages": backlog.EARLY_MAX,
            "late messages": backlog.BACKLOG_MAX,
            "rounds ahead": merged_parts.ROUNDS_AHEAD_MAX + 1,
            "merges": 2,
        }

    def check(self, device: DeviceId, kept: Mapping[str, int]) -> None:
        """Of a device that keeps so many of each."""
        for what, found in kept.items():
            if found > self._most[what]:
                self._findings.add(f"{device} keeps {found} {what}, more than {self._most[what]}")


class Logs:
    """Takes structlog's events for itself as long as a simulation runs."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.events: Counter[str] = Counter()

    def __call__(self, _: object, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        name = str(event["event"])
        self.events[name] += 1
        if level in ("warning", "error", "critical", "exception"):
            refused = set(event.get("counts", ()))
            if level != "warning" or name not in EXPECTED or not refused <= REFUSED_EXPECTED:
                details = " ".join(f"{key}={value!r}" for key, value in event.items() if key != "event")
                self._findings.add(f"{PROCESS.get()} logged {level} {name} {details} at {anyio.current_time():.3f} s")
        raise structlog.DropEvent
