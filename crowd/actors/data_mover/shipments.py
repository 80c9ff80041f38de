"""What this device sends in bulk, and what of it is under way: `Shipments`."""

from collections import deque
from collections.abc import Sequence
from typing import assert_never

import structlog

from crowd.actors import inbox
from crowd.actors.probe import Probe
from crowd.planning.profile import Share
from crowd.protocol.messages import (
    KEPT_ROUNDS,
    Contribution,
    MergedSlice,
    Parameters,
    SampleNames,
    Samples,
    SliceKey,
    WholeState,
)
from crowd.protocol.transfer.effects import Effect
from crowd.protocol.transfer.transfers import Transfers
from crowd.runtime.clock import now_us
from crowd.units import SECOND_US, DeviceId

GIVE_UP_US = 60 * SECOND_US
"""Shortest silence that ends a transfer; longer where rounds are long, as bytes may be of use for longer."""
ROUNDS_OF_USE = 3
"""Rounds for which bytes that were sent may still be awaited."""
LOANS_AT_ONCE = 2
"""Transfers of samples or names under way; the next begins when one has arrived, so that a slow link is not flooded."""

log = structlog.get_logger()


class Shipments:
    """Begins transfers in the right order, ends those that are of no use any more, and keeps published slices for who
    lacks them. Returns effects of `Transfers`, to be carried out at once."""

    def __init__(self, device: DeviceId, share: Share, transfers: Transfers, probe: Probe) -> None:
        self._me = device
        self._share = share
        self._transfers = transfers
        self._probe = probe
        self._plan = inbox.PlanBegun(uplink_bytes_s=0, downlinks_bytes_s={}, round_us=0)
        """The plan in force; before the first the slowest link is assumed, as others may ask for a state already."""
        self._published: dict[SliceKey, str] = {}
        self._contributions: dict[str, Contribution | Parameters] = {}
        self._loans: deque[inbox.SendCargo] = deque()
        self._loans_out: dict[str, inbox.SendCargo] = {}
        self._states_out: dict[DeviceId, str] = {}

    def begin_plan(self, plan: inbox.PlanBegun) -> None:
        """Be as fast as its links are, and as patient as its rounds are long."""
        self._plan = plan
        self._transfers.give_up_us = max(GIVE_UP_US, ROUNDS_OF_USE * plan.round_us)

    def send(self, message: inbox.SendCargo) -> Sequence[Effect]:
        """Begin to send it, unless it has to wait or may not leave this device."""
        match message.cargo:
            case Samples() | SampleNames():
                return self._lend(message)
            case MergedSlice(key=key):
                self._published[key], effects = self._begin(message)
                for old in [old for old in self._published if _is_out_of_date(old, key)]:
                    self._transfers.drop(self._published.pop(old))
                return effects
            case (Contribution() | Parameters()) as cargo:
                self._drop_contributions_before(*_round_of(cargo))
                transfer, effects = self._begin(message)
                self._contributions[transfer] = cargo
                return effects
            case WholeState():
                if message.destination is None:
                    return ()
                self._states_out[message.destination], effects = self._begin(message)
                return effects
            case _:
                assert_never(message.cargo)

    def _begin(self, message: inbox.SendCargo) -> tuple[str, Sequence[Effect]]:
        self._probe.sent(message.destination, message.cargo, message.data)
        rate_bytes_s = self._rate_bytes_s(message)
        return self._transfers.send(
            now_us(), message.destination, message.cargo, message.data, rate_bytes_s=rate_bytes_s
        )

    def _rate_bytes_s(self, message: inbox.SendCargo) -> int:
        """Bytes per second of the slowest link on the path of `message`."""
        downlinks = self._plan.downlinks_bytes_s
        receivers = downlinks if message.destination is None else {message.destination} & downlinks.keys()
        return min([self._plan.uplink_bytes_s, *(downlinks[device] for device in receivers if device != self._me)])

    # --- what others ask for ------------------------------------------------------------------------------------------

    def sends_state_to(self, device: DeviceId) -> bool:
        """Whether a whole state is on its way to that device."""
        return device in self._states_out

    def published(self, key: SliceKey, asker: DeviceId) -> Sequence[Effect] | None:
        """Offer a merged slice of this device's to one who lacks it; `None`: it is not kept."""
        return self._transfers.offer_to(self._published[key], asker) if key in self._published else None

    def is_over(self, key: SliceKey) -> bool:
        """Whether slices of later rounds than this one's are published."""
        return any(_is_later(published, key) for published in self._published)

    # --- samples on loan ----------------------------------------------------------------------------------------------

    def _lend(self, message: inbox.SendCargo) -> Sequence[Effect]:
        if self._share is not Share.RAW:
            log.error("lending_refused", borrower=message.destination, share=self._share.value)
            return ()
        if not self._is_on_loan(message):
            self._loans.append(message)
        return self._next_loans()

    def _is_on_loan(self, asked: inbox.SendCargo) -> bool:
        """Whether the borrower asks again for samples that are on their way to it already."""
        waiting = [*self._loans, *self._loans_out.values()]
        return any((loan.destination, loan.cargo) == (asked.destination, asked.cargo) for loan in waiting)

    def _next_loans(self) -> Sequence[Effect]:
        effects: list[Effect] = []
        while self._loans and len(self._loans_out) < LOANS_AT_ONCE:
            loan = self._loans.popleft()
            transfer, begun = self._begin(loan)
            self._loans_out[transfer] = loan
            effects.extend(begun)
        return effects

    # --- their end ----------------------------------------------------------------------------------------------------

    def ended(self, transfer: str) -> tuple[Contribution | Parameters | None, Sequence[Effect]]:
        """A transfer has arrived, or will not: what it was, if that belongs to a round."""
        ended = self._contributions.pop(transfer, None)
        self._states_out = {device: name for device, name in self._states_out.items() if name != transfer}
        loan = self._loans_out.pop(transfer, None)
        return ended, () if loan is None else self._next_loans()

    def forget_before(self, generation: int) -> None:
        """Drop transfers of earlier generations: their contributions are of no use, and their borrowers ask anew."""
        self._drop_contributions_before(generation, 0)
        for transfer in self._loans_out:
            self._transfers.drop(transfer)
        self._loans.clear()
        self._loans_out.clear()

    def _drop_contributions_before(self, generation: int, number: int) -> None:
        """Drop contributions to earlier rounds, which would only hold up what matters now."""
        for transfer in [name for name, of in self._contributions.items() if _round_of(of) < (generation, number)]:
            self._transfers.drop(transfer)
            del self._contributions[transfer]


def _round_of(cargo: Contribution | Parameters) -> tuple[int, int]:
    """The generation and round of `cargo`."""
    key = cargo.key if isinstance(cargo, Contribution) else cargo
    return key.generation, key.round


def _is_later(key: SliceKey, than: SliceKey) -> bool:
    """Whether `key` is of a later round than `than`, under the same plan."""
    return (key.generation, key.plan_digest) == (than.generation, than.plan_digest) and key.round > than.round


def _is_out_of_date(old: SliceKey, new: SliceKey) -> bool:
    """Whether slice `old` may go once `new` is published: those of the last rounds and of one generation are kept."""
    if old.generation != new.generation:
        return old.generation < new.generation - 1
    return old.round <= new.round - KEPT_ROUNDS
