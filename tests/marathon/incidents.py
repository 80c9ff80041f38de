"""What is done to the devices of a marathon, and when: `TABLE`, for one of `MINUTES`. Longer and shorter ones stretch
all of its times alike."""

import enum
from collections.abc import Mapping

import attrs

MINUTES = 15.0
FINISH_S = 780.0
"""When the rate of learning becomes 1, so that the target can be reached."""
DEVICES = ("attic", "cellar", "kitchen", "porch")


class Kind(enum.Enum):
    HANG = "hangs"
    JUNK = "junk"
    REPLAY = "a former run, said again"
    REFUSAL = "the broker refuses all"
    KILL = "is killed"


@attrs.frozen(kw_only=True)
class Incident:
    """Something that begins after `at_s` seconds, and is over or mended `lasts_s` later."""

    at_s: float
    kind: Kind
    device: str = ""
    """Whom it meets; empty: all, or of those that hang whoever trains then, as nobody else would hang."""
    lasts_s: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.device} {self.kind.value}" if self.device else self.kind.value

    @property
    def end_s(self) -> float:
        return self.at_s + self.lasts_s

    def stretched(self, factor: float) -> "Incident":
        """The same in a marathon `factor` times as long."""
        return attrs.evolve(self, at_s=self.at_s * factor, lasts_s=self.lasts_s * factor)


TABLE = (
    Incident(at_s=75, kind=Kind.HANG, lasts_s=60),
    Incident(at_s=195, kind=Kind.JUNK, lasts_s=60),
    Incident(at_s=285, kind=Kind.KILL, device="kitchen", lasts_s=10),
    Incident(at_s=345, kind=Kind.REPLAY, lasts_s=30),
    Incident(at_s=405, kind=Kind.REFUSAL, lasts_s=30),
    Incident(at_s=480, kind=Kind.HANG, lasts_s=40),
    Incident(at_s=570, kind=Kind.KILL, device="attic", lasts_s=10),
    Incident(at_s=630, kind=Kind.KILL, device="porch", lasts_s=10),
)
"""In order of time; none begins before the one before it is over."""

NAMED_BY: Mapping[Kind, frozenset[str]] = {
    Kind.HANG: frozenset({"trainer_absent", "device_suspended", "round_held_up"}),
    Kind.JUNK: frozenset({"inbound_messages_dropped", "messages_refused"}),
    Kind.REPLAY: frozenset({"former_life_heard", "messages_refused"}),
    Kind.REFUSAL: frozenset({"waiting_for_broker"}),
    Kind.KILL: frozenset({"device_evicted"}),
}
"""The events of the log that tell people of it; where it meets one device they name that."""
