"""Why a node waits, in one line for people: `Acquaintances`, a probe that knows who is here, and `tell_waiting`."""

import math
from collections.abc import Callable, Iterable

import anyio

from crowd.actors.probe import Probe
from crowd.agreement.predicates import missing_acks
from crowd.agreement.state import State
from crowd.protocol.codec import Opened, Reason
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life

LOOK_EVERY_S = 1.0
TELL_AFTER_S = 10.0
TELL_AGAIN_S = 60.0
NAMES_MAX = 5
"""Names that are told of one kind; of more, how many there are."""
STRANGERS_MAX = 16
"""Names outside of the cluster that are remembered: anybody may invent them."""
TWIN_US = 60 * SECOND_US
"""Microseconds for which a device of the same name is remembered; recorded messages, played again, are soon over."""
_ONLY_OF_THE_LIVING = (Channel.BEAT, Channel.ALL, Channel.TO)
"""What the broker does not keep: whoever sends it is there."""


class Acquaintances(Probe):
    """Knows of one device's cluster who is here, who is missing, who is not believed, and who does not answer."""

    def __init__(self, device: DeviceId, members: Iterable[DeviceId]) -> None:
        """`members` are all that the members file of `device` names."""
        self._me = device
        self._members = frozenset(members)
        self._state: State | None = None
        self._life: Life | None = None
        self._refused: dict[DeviceId, Reason] = {}
        self._twin_heard_us: int | None = None

    def life_began(self, life: Life) -> None:
        self._life = life
        self._state = None

    def agreement_moved(self, state: State) -> None:
        self._state = state

    def refused(self, sender: DeviceId, reason: Reason) -> None:
        if sender in self._members or len(self._refused.keys() - self._members) < STRANGERS_MAX:
            self._refused[sender] = reason

    def let_in(self, address: Address, opened: Opened) -> None:
        self._refused.pop(opened.sender, None)
        own = self._life if self._state is None else self._state.own.profile.life
        is_own = opened.sender == self._me and address.channel in _ONLY_OF_THE_LIVING
        # a former life's messages may have been recorded
        if is_own and own is not None and opened.life.boot != own.boot and opened.life > own:
            self._twin_heard_us = self._now_us

    @property
    def _now_us(self) -> int:
        return 0 if self._state is None else self._state.now_us

    def why_waiting(self) -> str | None:
        """The reason why no plan with work is in force, in one line; `None` if one is, or the run is over."""
        state = self._state
        twin = self._about_twin()
        if state is None:
            return twin or "this device still measures its speed, or has no connection to its broker yet"
        if state.own.progress.finished or (state.running and not any(missing_acks(state))):
            return None
        here = [profile.device for profile in state.view.living]
        parts = [twin] if twin else []
        if not state.own.connected:
            parts.append("the broker is away")
        elif not state.has_round_trip:
            parts.append("what this device sends does not come back from the broker: see its access list")
        needed = max((profile.members_min for profile in state.view.living), default=1)
        if len(here) < needed and not state.view.started:
            parts.append(f"{len(here)} of {needed} devices are here ({_names(here)})")
            parts += self._about_missing(here, needed)
        for device, reason in sorted(self._refused.items()):
            parts.append(self._about_refused(device, reason))
        parts += self._about_unanswered(state)
        return "; ".join(parts) or None

    def _about_twin(self) -> str | None:
        if self._twin_heard_us is None or self._now_us - self._twin_heard_us > TWIN_US:
            return None
        return (
            f"another device is here with the name {self._me} and its key: give each a name and key of its own "
            "('crowd keys new')"
        )

    def _about_missing(self, here: list[DeviceId], needed: int) -> Iterable[str]:
        missing = sorted(self._members - set(here) - self._refused.keys())
        if missing:
            yield f"missing: {_names(missing)} (switched on, with this broker and cluster in node.toml?)"
        if len(self._members) < needed:
            yield f"members_min is {needed}, and the members file names only {len(self._members)}: lower it"

    def _about_refused(self, device: DeviceId, reason: Reason) -> str:
        if reason is Reason.WRONG_VERSION:
            return f"{device} speaks another version of the protocol: install the same crowd on both"
        if device not in self._members:
            return (
                f"{device} is here but not in {self._me}'s members file: add the line of 'crowd keys show' on {device}"
            )
        return (
            f"{device} is not believed, as its key is another than in {self._me}'s members file: put the line of "
            f"'crowd keys show' on {device} there"
        )

    def _about_unanswered(self, state: State) -> Iterable[str]:
        for device in missing_acks(state):
            ack = state.acks.latest.get(device)
            if ack is None or ack.view_digest == state.view.digest:
                yield f"{device} does not answer"
            else:
                yield (
                    f"{device} plans with other devices than are here: see what it says, and compare the keys in both "
                    "members files ('crowd keys show')"
                )


async def tell_waiting(known: Acquaintances, say: Callable[[str], None]) -> None:
    """Say why the node waits, for as long as this is not cancelled: when it has waited for `TELL_AFTER_S`, when the
    reason changes, though not earlier than after so long again, and every `TELL_AGAIN_S`."""
    waits_since_s: float | None = None
    said, said_s = "", -math.inf
    while True:
        await anyio.sleep(LOOK_EVERY_S)
        now_s, why = anyio.current_time(), known.why_waiting()
        if why is None:
            waits_since_s = None
            continue
        if waits_since_s is None:
            waits_since_s = now_s
        again_s = TELL_AGAIN_S if why == said else TELL_AFTER_S
        if now_s >= max(waits_since_s + TELL_AFTER_S, said_s + again_s):
            say(why)
            said, said_s = why, now_s


def _names(devices: Iterable[DeviceId]) -> str:
    names = sorted(devices)
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
