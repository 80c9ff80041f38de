"""Which run a device takes part in, and when the next one begins: `Runs`."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from crowd.actors import inbox
from crowd.actors.planner.results import Results
from crowd.actors.planner.timetable import Timetable
from crowd.agreement import events
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import State
from crowd.model_card import ModelCard
from crowd.runtime.clock import now_us
from crowd.units import SECOND_US, DeviceId

LOOK_US = 60 * SECOND_US
"""How often it is looked whether a run is due: the local time may be set, and data may grow."""


class Runs:
    """Knows the number of the run with which this device begins, and says whether the next may begin, and when it is
    due by the clock."""

    def __init__(
        self,
        device: DeviceId,
        results: Results,
        timetable: Timetable,
        *,
        when_new: float | None,
        saved: Callable[[], StateProgress | None],
        last_card: Callable[[], ModelCard | None],
        local_time: Callable[[], datetime],
    ) -> None:
        """`when_new`: the part by which samples must have grown for another run; `saved`: how far the state in the
        store has come; `last_card`: what is known of the last run."""
        self._me = device
        self._results = results
        self._timetable = timetable
        self._saved = saved
        self._when_new = when_new
        self._last_card = last_card
        self._local_time = local_time
        self._look_us: int | None = None

    def first(self, early: Sequence[events.Event]) -> int:
        """That of the devices that are here, as far as came `early`, or the one that this device has saved, over or
        not; without either the last one that is known to be over: who comes with its model ends it, and where nobody
        has that any more it is trained again. No run begins for which nobody has asked."""
        saved = self._saved() or StateProgress()
        return max(self._run_here(early), saved.run) or max(1, self._results.latest_run)

    def _run_here(self, early: Sequence[events.Event]) -> int:
        """The run of the devices that are here; 0 without any."""
        offline = {event.device for event in early if isinstance(event, events.StatusHeard) and not event.online}
        runs = [
            profile.run
            for event in early
            if isinstance(event, events.Learned)
            for profile in event.profiles
            if profile.device not in offline and profile.device != self._me
        ]
        return max(runs, default=0)

    def answer(self, asked: inbox.BeginNextRun, state: State | None) -> inbox.RunAsked:
        """The run that this request begins, if that is the next one; else the one that has begun, or why none does."""
        if state is None:
            return inbox.RunAsked(run=None, why="this device has not joined the others yet")
        run = state.own.profile.run
        if asked.follows is not None and asked.follows < run:
            return inbox.RunAsked(run=run)
        if not self._results.is_over(run):
            return inbox.RunAsked(run=None, why=f"run {run} is not over")
        return inbox.RunAsked(run=run + 1)

    # --- by itself ----------------------------------------------------------------------------------------------------

    def look_us(self, state: State | None) -> int | None:
        """When to look again whether the next run is due; `None`: it never is by itself."""
        if self._timetable.is_empty and self._when_new is None:
            return None  # asked again and again, after every message
        if state is None or not self._results.is_over(state.own.profile.run):
            self._look_us = None
            return None
        if self._look_us is None:
            self._look_us = self._next_look_us(state.own.profile.run)
        return self._look_us

    def is_due(self, state: State | None, reached_us: int) -> bool:
        """Whether the next run is due, by the local time or as there are more samples."""
        look_us = self.look_us(state)
        if look_us is None or reached_us < look_us:
            return False
        assert state is not None
        self._look_us = self._next_look_us(state.own.profile.run)
        due = self._due(state.own.profile.run)
        return (due is not None and self._local_time() >= due) or self._has_grown(state)

    def _due(self, run: int) -> datetime | None:
        card = self._last_card()
        return None if card is None else self._timetable.due(run, card.time)

    def _has_grown(self, state: State) -> bool:
        """Whether the living devices with this task have so many more samples than those had that took part in the last
        run."""
        card = self._last_card()
        if self._when_new is None or card is None or card.held is None:
            return False
        own = state.own.profile.task.fingerprint
        held = sum(sum(profile.label_counts) for profile in state.view.living if profile.task.fingerprint == own)
        return held >= (1 + self._when_new) * card.held and held > card.held

    def _next_look_us(self, run: int) -> int | None:
        due = self._due(run)
        if due is None:
            return None if self._when_new is None else now_us() + LOOK_US
        wait_us = (due - self._local_time()) // timedelta(microseconds=1)
        return now_us() + max(0, min(LOOK_US, wait_us))
