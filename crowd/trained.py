"""The networks that a node has: `TrainedModel`, one of them, and `Models`, which they come from."""

import datetime
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import structlog
import torch

from crowd.agreement.state import Active
from crowd.config.node_file import MODEL_FILE, NodeConfig
from crowd.errors import BadConfig
from crowd.learning import replica
from crowd.learning.replica import ReplicaState
from crowd.learning.task import Task
from crowd.learning.work import network_of
from crowd.model_card import CARD_FILE, ModelCard
from crowd.planning.phase import BILLION
from crowd.planning.plan import Plan
from crowd.ports import Store
from crowd.protocol.messages import ResultMessage
from crowd.run_list import RUNS_FILE, appended

ROOM_BYTES = 64 * 1024
"""Room for all of a model's file but the elements of its state."""

log = structlog.get_logger()


class TrainedModel:
    """The network that a run has ended in, or that its last complete round has led to. It is in memory as long as this
    is; that of a run which has ended is in the node's store too, as soon as that takes it."""

    def __init__(
        self,
        state: ReplicaState,
        make_model: Callable[[], torch.nn.Module],
        store: Store,
        *,
        card: ModelCard | None = None,
    ) -> None:
        """Take the `state` of a network as `make_model` makes it; nothing is written yet. `card`: what is known of it,
        as its run has ended."""
        self.card = card
        """What is known of it; `None` before the end of its run."""
        self.is_saved = False
        """Whether it is in the store."""
        self._state = state
        self._make_model = make_model
        self._store = store

    @property
    def is_final(self) -> bool:
        """Whether its run has ended, and with it."""
        return self.card is not None

    @property
    def run(self) -> int:
        """Number of its run in the cluster."""
        return self._state.run

    @property
    def round(self) -> int:
        """Number of the run's last round that is complete in it."""
        return self._state.round

    @property
    def digest(self) -> str:
        """Digest of its state, in hexadecimal: the same on every device that has completed the round."""
        return self._state.digest.hex()

    @property
    def value(self) -> float | None:
        """Value of the task's metric of this very network; `None`: not known. Before the run's end it never is, as a
        state is evaluated in the round after it."""
        return None if self.card is None else self.card.value

    def module(self) -> torch.nn.Module:
        """A network of the caller's own, in evaluation mode. Making a large one takes a while."""
        model = self._make_model()
        replica.load(model, self._state)
        return model.eval()

    def to_bytes(self) -> bytes:
        """The network as a safetensors file with the names of its `state_dict`."""
        return replica.trained_model_bytes(self._make_model(), self._state)

    def save(self) -> None:
        """Write it to the store, then its card, and add that to the list of runs. Raises `OSError` if that cannot be
        done now, `RuntimeError` before the run's end: what is stored is what a run has ended in."""
        if self.card is None:
            raise RuntimeError("the run is not over: only the network that it ends in is stored; to_bytes() gives this")
        stored, data = _stored_card(self._store), self.to_bytes()
        # a former life may have written it, which had seen more of the run
        card = (self.card if stored is None or stored.digest != self.digest else stored).of_file(data)
        self._store.write(MODEL_FILE, data)
        self._store.write(CARD_FILE, card.to_bytes())
        self._store.write(RUNS_FILE, appended(self._store.read(RUNS_FILE), card))
        self.card = card
        self.is_saved = True

    def save_or_warn(self) -> None:
        """Write it to the store. A store that fails ends no run: the network stays in memory for another `save`."""
        try:
            self.save()
        except OSError as error:
            log.warning("model_not_saved", error=str(error))


def _stored_card(store: Store) -> ModelCard | None:
    data = store.read(CARD_FILE)
    try:
        return None if data is None else ModelCard.from_bytes(data, Path(CARD_FILE))
    except BadConfig as error:
        log.warning("card_replaced", error=str(error))
        return None


class Models:
    """Knows the state that this device holds and the one that its last run ended in, and makes networks of them when
    somebody asks. States are referred to, never copied."""

    def __init__(
        self,
        config: NodeConfig,
        task: Task,
        store: Store,
        *,
        task_name: str,
        crowd_version: str,
        local_time: Callable[[], datetime.datetime],
    ) -> None:
        """`task_name` is what cards call the task, and `local_time` says when a run has ended."""
        self._config = config
        self._task = task
        self._store = store
        self._task_name = task_name
        self._crowd_version = crowd_version
        self._local_time = local_time
        self._held: ReplicaState | None = None
        """What the last complete round has led to."""
        self._active: Active | None = None
        """The last generation that was to train something."""
        self.final: TrainedModel | None = None
        """The network that the last run which has ended here ended in."""

    @property
    def latest(self) -> TrainedModel | None:
        """The network that the last complete round has led to; `None` before the first."""
        if self._held is None or (self.final is not None and self.final.run >= self._held.run):
            return self.final
        return self._of(self._held)

    def last_card(self) -> ModelCard | None:
        """What is known of what the last run that has ended here ended in, in this life or before."""
        return _stored_card(self._store) if self.final is None else self.final.card

    def begin_plan(self, active: Active) -> None:
        """A generation has begun."""
        if not active.start.finished:
            self._active = active

    def hold(self, state: ReplicaState) -> None:
        """This is the state that the device holds now."""
        if state.round:
            self._held = state

    def finish(self, state: ReplicaState, result: ResultMessage, others: Iterable[ResultMessage]) -> None:
        """The run has ended here with this `result`, and `state` is kept: write it to the store, or try to. `others`
        are results of whatever run and device."""
        if self.final is None or self.final.digest != state.digest.hex():
            self.final = self._of(state, self._card(state, result, others))
        if not self.final.is_saved:
            self.final.save_or_warn()

    def _of(self, state: ReplicaState, card: ModelCard | None = None) -> TrainedModel:
        return TrainedModel(state, partial(network_of, self._task), self._store, card=card)

    def _card(self, state: ReplicaState, result: ResultMessage, others: Iterable[ResultMessage]) -> ModelCard:
        # who has evaluated nothing itself may have heard of it; one's own parameters nobody has evaluated
        told = (each.value for each in (result, *others) if each.progress == result.progress)
        known = [value for value in told if value is not None and result.model_digest == result.progress.digest]
        plan = None if self._active is None or self._active.start.run != state.run else self._active.plan
        return ModelCard(
            task=self._task_name,
            cluster=self._config.cluster,
            run=state.run,
            metric=self._task.metric.name,
            better=self._task.metric.better,
            value=known[0] if known else None,
            target=self._task.target,
            reached=result.reached,
            rounds=state.round,
            epochs=state.epochs_ppb / BILLION,
            samples_trained=state.samples,
            digest=state.digest.hex(),
            sha256=None,
            when=self._local_time().isoformat(timespec="seconds"),
            data=None if plan is None else samples_by_lender(plan),
            held=None if plan is None else plan.samples_total + sum(sum(idle.counts) for idle in plan.idle),
            crowd_version=self._crowd_version,
            torch_version=str(torch.__version__),
        )


def samples_by_lender(plan: Plan) -> dict[str, int]:
    """How many of each device's samples some trainer trains, without those of which none are."""
    found: dict[str, int] = {}
    for assignment in plan.assignments:
        if assignment.samples:
            found[assignment.lender] = found.get(assignment.lender, 0) + assignment.samples
    return dict(sorted(found.items()))


def check_room(store: Store, state_elements: int) -> None:
    """Raise `BadConfig` if a network of so many elements could not be written to the store now."""
    store.check(ROOM_BYTES + 4 * state_elements)
