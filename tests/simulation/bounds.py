"""What may travel, what may be kept, and what may be complained of.

Layout: `Wire` (no raw samples from who does not share them), `Bounds` (memory and mailboxes), `Logs` (nothing that was
not provoked).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
import structlog

from crowd.actors import planner as planning_actor
from crowd.actors.data_mover.data_mover import DataMover
from crowd.actors.planner import Planner
from crowd.actors.trainer import rounds, trainer
from crowd.actors.trainer.trainer import Trainer
from crowd.planning.profile import Share
from crowd.ports import Delivery
from crowd.protocol import strict
from crowd.protocol.codec import decode
from crowd.protocol.messages import AckMessage, Message, Offer, Samples
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
        "device_evicted",
        "device_left_out",
        "inbound_message_dropped",
        "messages_refused",
        "round_held_up",
        "transfer_failed",
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
            case Offer(cargo=Samples()):
                self._findings.add(f"S4: {device} sent raw samples to {address.destination}, but does not share them")
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

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def check(self, device: DeviceId, actors: Mapping[type, Any], devices: int) -> None:
        """Of a device whose actors these are, in a cluster of so many."""
        kept: dict[str, tuple[int, int]] = {}
        for kind, actor in actors.items():
            kept[f"the mailbox of its {kind.__name__}"] = (len(actor.ref._mailbox._messages), MAILBOX_MAX)
        if (mover := actors.get(DataMover)) is not None:
            kept["its urgent messages"] = (len(mover._connection.outbox._urgent), URGENT_MAX)
        if (planner := actors.get(Planner)) is not None and planner._state is not None:
            state = planner._state
            kept["its plans"] = (len(planner._memo), planning_actor.MEMO_MAX)
            kept["its acks"] = (len(state.acks.latest), devices)
            kept["its tombstones"] = (len(state.view.tombstones), devices)
        if (training := actors.get(Trainer)) is not None:
            kept["its early messages"] = (len(training._early), trainer.EARLY_MAX)
            kept["its rounds ahead"] = (len(training._rounds._parts), rounds.ROUNDS_AHEAD_MAX + 1)
            kept["its merges"] = (len({number for number, _ in training._rounds._merges}), 2)
        for what, (found, most) in kept.items():
            if found > most:
                self._findings.add(f"{device} keeps {found} of {what}, more than {most}")


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
