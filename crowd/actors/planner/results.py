"""The results of the devices of a run: `Results`."""

from collections.abc import Callable

from crowd.actors import inbox
from crowd.actors.inbox import TrainerMessage
from crowd.actors.planner.observations import Observation, ResultKnown, RunOver
from crowd.agreement import events
from crowd.agreement.state import State
from crowd.protocol.messages import ResultMessage
from crowd.runtime import ActorRef
from crowd.units import DeviceId, Life

UNFINISHED_LINKS = 4
"""A device that has not finished may fetch the final state from several others in turn, each for as long as one may
keep the others waiting."""


class Results:
    """Knows who has published which result: so a final state is fetched, and the run is over when all have it.

    The state that its methods are given is that of the agreement.
    """

    def __init__(
        self, device: DeviceId, trainer: ActorRef[TrainerMessage], observe: Callable[[Observation], None]
    ) -> None:
        self._me = device
        self._trainer = trainer
        self._observe = observe
        self._results: dict[DeviceId, ResultMessage] = {}
        self._told_in: dict[DeviceId, Life] = {}
        self._followed: DeviceId | None = None
        """The device that was last named to the trainer as holder of the final state."""
        self._over_run = 0
        self._has_ended = False
        """Whether this device has told its own result in this life."""

    @property
    def latest_run(self) -> int:
        """The last run that is known to have ended; 0 without any."""
        return max((result.progress.run for result in self._results.values()), default=0)

    def is_over(self, run: int) -> bool:
        """Whether all living devices with this task have ended that run."""
        return self._over_run >= run

    def begin_run(self) -> None:
        self._followed = None

    def note_own(self, result: ResultMessage) -> None:
        self._has_ended = True
        self._note(self._me, result)

    async def hear(self, sender: DeviceId, life: Life, result: ResultMessage, state: State | None) -> None:
        """A device has published its result, in that life."""
        self._told_in[sender] = life
        self._note(sender, result)
        await self._follow(sender, state)

    def _note(self, device: DeviceId, result: ResultMessage) -> None:
        self._results[device] = result
        self._observe(ResultKnown(device=device, result=result))

    async def follow(self, state: State) -> None:
        """Look again at what is known, as other devices are alive now."""
        for device in list(self._results):
            await self._follow(device, state)

    async def _follow(self, device: DeviceId, state: State | None) -> None:
        """Fetch the final state of the device that has published a result, instead of redoing its rounds."""
        result = self._results[device]
        if device == self._me:
            return  # a former life's, and its state has gone with it
        if state is None or state.own.progress.finished or device not in _peers(state):
            return
        if not self._is_of_its_life(device, state):
            return
        if self._followed is not None and self._followed in _peers(state):
            return
        if result.progress.run == state.own.profile.run and result.progress > state.own.progress:
            self._followed = device
            await self._trainer.tell(inbox.FinishedElsewhere(progress=result.progress, holders=(device,)))

    def check_over(self, state: State | None) -> None:
        """Tell it, once, when all have published what this device has reached."""
        if not self._has_ended or state is None or not _has_finished_here(state):
            return  # what the broker has kept of this device is a former life's, and its model has gone with that
        if state.own.profile.run <= self._over_run:
            return
        # this device too, though others have evicted it and it is no peer at the moment
        if not all(self._has_finished(device, state) for device in {self._me, *_peers(state)}):
            return  # one is still on its way to the same final state
        self._over_run = state.own.profile.run
        self._observe(RunOver(run=self._over_run))

    def unfinished(self, state: State | None) -> events.HeldUp | None:
        """For whose results the end of the run waits; `None`: for nobody's."""
        if state is None or not _has_finished_here(state) or self._over_run >= state.own.profile.run:
            return None
        assert state.own.finished_us is not None
        without = frozenset(
            device for device in _peers(state) if device != self._me and not self._has_finished(device, state)
        )
        if not without:
            return None
        since_us = max(state.own.finished_us, state.view_changed_us, state.stalls.began_us)
        return events.HeldUp(devices=without, since_us=since_us, links=UNFINISHED_LINKS)

    def _has_finished(self, device: DeviceId, state: State) -> bool:
        """Whether the device has published the result that this one has reached."""
        result = self._results.get(device)
        if result is None or result.progress != state.own.progress:
            return False
        return device == self._me or self._is_of_its_life(device, state)

    def _is_of_its_life(self, device: DeviceId, state: State) -> bool:
        """Whether another living device has told its result since its process began: else the state has gone with the
        one that did."""
        told_in = self._told_in.get(device)
        return told_in is not None and state.view.profiles[device].life.boot == told_in.boot


def _has_finished_here(state: State) -> bool:
    """Whether this device has the final state of its run: that of the run before is none while the next one begins."""
    own = state.own
    return own.progress.finished and own.progress.run == own.profile.run


def _peers(state: State) -> frozenset[DeviceId]:
    """The living devices with this very task whose work does not stand still: another's state is of no use here, and a
    device that is left out for its task never has the result of this run."""
    own, view = state.own.profile.task.fingerprint, state.view
    return frozenset(
        profile.device
        for profile in view.living
        if profile.task.fingerprint == own and profile.device not in view.suspended
    )
