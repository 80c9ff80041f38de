"""The states that this device holds, and their way from device to device: `WholeStates`."""

from functools import partial

import attrs
import structlog

from crowd.actors.trainer.observations import StateHeld
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.rounds import Rounds
from crowd.actors.trainer.wanted import Wanted
from crowd.agreement import events
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.errors import MalformedMessage
from crowd.learning import state_file
from crowd.learning.layout import Layout
from crowd.learning.replica import ReplicaState
from crowd.protocol.messages import AskState, WholeState
from crowd.runtime.clock import now_us
from crowd.units import SECOND_US, DeviceId

FOLLOW_AFTER_ROUNDS = 3
FOLLOW_AFTER_US_MIN, FOLLOW_AFTER_US_MAX = SECOND_US // 5, 3 * SECOND_US
"""Wait after a result, which overtakes the last merged slices on their way: only a device that lacks them after so
long, or after what they may take, fetches."""

log = structlog.get_logger()


class WholeStates:
    """Holds the present state and the one that its generation began with; gives them to who asks, fetches what this
    device lacks."""

    def __init__(self, layout: Layout, outside: Outside, rounds: Rounds) -> None:
        self._layout = layout
        self._outside = outside
        self._rounds = rounds
        self._present: ReplicaState | None = None
        self._start: ReplicaState | None = None
        self._wanted: Wanted | None = None
        self._final: Wanted | None = None
        """The final state, which others hold: to be fetched, unless this device reaches it by itself."""

    @property
    def has_begun(self) -> bool:
        """Whether there is a present state, as a run has begun."""
        return self._present is not None

    @property
    def present(self) -> ReplicaState:
        """The state after the last complete round."""
        assert self._present is not None, "no run has begun"
        return self._present

    # --- what changes them --------------------------------------------------------------------------------------------

    def begin_run(self, first: ReplicaState) -> None:
        self._wanted = self._start = None
        self._hold(first)

    def begin_plan(self, active: Active) -> None:
        self._wanted = None
        self._start = self._present if self.present.progress == active.start else None

    def complete(self, after: ReplicaState) -> None:
        """A round has led to `after`."""
        self._wanted = None
        self._hold(after)

    def replace(self, fetched: ReplicaState) -> None:
        """Go on from a state that has come from another device."""
        self._wanted = None
        self._start = fetched
        self._hold(fetched)

    def _hold(self, state: ReplicaState) -> None:
        self._present = state
        self._outside.observe(StateHeld(state=state))

    # --- fetching -----------------------------------------------------------------------------------------------------

    async def fetch(self, progress: StateProgress, holders: tuple[DeviceId, ...]) -> None:
        """Get this state, or a later one of the same plan, from one of these devices."""
        others = tuple(holder for holder in holders if holder != self._outside.device)
        assert others, "this device is said to be the only one that holds a state which it lacks"
        log.info("state_wanted", round=progress.round, holders=list(others))
        await self._ask(Wanted(progress=progress, holders=others, since_us=now_us() + self._transfer_us))

    async def _ask(self, wanted: Wanted) -> None:
        self._wanted = attrs.evolve(wanted, again_us=now_us() + 3 * SECOND_US + self._transfer_us)
        await self._outside.say(wanted.holder, AskState(digest=wanted.progress.digest))

    def stop_fetching(self) -> None:
        self._wanted = None

    def follow(self, progress: StateProgress, holders: tuple[DeviceId, ...]) -> None:
        """Others hold the final state of the run: fetch it after a while."""
        self._final = Wanted(progress=progress, holders=holders, again_us=now_us() + self._follow_after_us())

    def _follow_after_us(self) -> int:
        active = self._rounds.active
        if not self._rounds.published:
            return 0  # no slices are on their way
        round_us = 0 if active is None else active.plan.round_us
        patience_us = max(FOLLOW_AFTER_US_MIN, FOLLOW_AFTER_ROUNDS * round_us)
        return max(min(patience_us, FOLLOW_AFTER_US_MAX), self._transfer_us)

    @property
    def _transfer_us(self) -> int:
        """Microseconds for a whole state over this device's link: four times what its bytes take."""
        return 16 * self._layout.elements * SECOND_US // max(1, self._outside.downlink_bytes_s)

    def deadline_us(self) -> int | None:
        """The time at which `tick` has something to do."""
        return min((want.again_us for want in (self._wanted, self._final) if want is not None), default=None)

    async def tick(self, now: int) -> None:
        await self._fetch_final(now)
        if self._wanted is None or now < self._wanted.again_us:
            return
        ahead = self._rounds.beyond(self._wanted.progress.round)
        wanted = self._wanted.once_more(ahead - {self._outside.device})
        await self._ask(wanted)
        if len(wanted.holders) == 1 and not ahead:  # of several one would have answered: it is the own link
            held_up = events.HeldUp(devices=frozenset(wanted.holders), since_us=wanted.since_us, links=0)
            await self._outside.planner.tell(held_up)

    async def _fetch_final(self, now: int) -> None:
        """Fetch the final state that others hold, unless this device has reached it by itself meanwhile."""
        final = self._final
        if final is None or now < final.again_us:
            return
        if self._wanted is not None:  # one state after the other
            self._final = attrs.evolve(final, again_us=now + FOLLOW_AFTER_US_MIN)
            return
        self._final = None
        if final.progress > self.present.progress:
            await self.fetch(final.progress, final.holders)

    async def opened(self, sender: DeviceId, header: WholeState, data: bytes) -> ReplicaState | None:
        """The state that has come, if it is the wanted one or serves as well; `None`: it is refused."""
        if self._wanted is None or not self._rounds.serves(header, self._wanted.progress):
            return None
        counters = len(self.present.counters)
        try:
            state = await self._outside.compute.run(partial(state_file.from_bytes, data, self._layout, counters))
        except MalformedMessage as error:
            log.warning("state_refused", sender=sender, error=str(error))
            return None
        if state.progress != header.progress:
            log.warning("state_refused", sender=sender, error="it is another state than its header says")
            return None
        return state

    # --- giving -------------------------------------------------------------------------------------------------------

    async def give(self, device: DeviceId, digest: bytes) -> None:
        """Send the state that is asked for; the present one, a round further, if it is gone already; or the next one,
        when it has come."""
        if not digest and self._rounds.keeps_waiting(device):
            self._rounds.schedule.keep_waiting(device)
            return
        state = self.present
        if self._start is not None and self._start.digest == digest:
            state = self._start
        data = await self._outside.compute.run(partial(state_file.to_bytes, state))
        generation, plan_digest = self._rounds.lineage
        cargo = WholeState(progress=state.progress, generation=generation, plan_digest=plan_digest)
        await self._outside.send(device, cargo, data)
