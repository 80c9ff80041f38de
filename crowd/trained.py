"""The trained network of a run that has ended: `TrainedModel`."""

from collections.abc import Callable

import structlog
import torch

from crowd.config.node_file import MODEL_FILE
from crowd.learning import replica
from crowd.learning.replica import ReplicaState
from crowd.ports import Store

ROOM_BYTES = 64 * 1024
"""Room for all of a model's file but the elements of its state."""

log = structlog.get_logger()


class TrainedModel:
    """The network that a run has trained: in memory as long as this is, and in a store as soon as that takes it."""

    def __init__(self, state: ReplicaState, make_model: Callable[[], torch.nn.Module], store: Store) -> None:
        """Take the final `state` of a network as `make_model` makes it; nothing is written yet."""
        self.is_saved = False
        """Whether it is in the store."""
        self._state = state
        self._make_model = make_model
        self._store = store

    @property
    def digest(self) -> str:
        """Digest of the final state, in hexadecimal."""
        return self._state.digest.hex()

    def module(self) -> torch.nn.Module:
        """A network of the caller's own, in evaluation mode."""
        model = self._make_model()
        replica.load(model, self._state)
        return model.eval()

    def to_bytes(self) -> bytes:
        """The network as a safetensors file with the names of its `state_dict`."""
        return replica.trained_model_bytes(self._make_model(), self._state)

    def save(self) -> None:
        """Write it to the store. Raises `OSError` if that cannot be done now."""
        self._store.write(MODEL_FILE, self.to_bytes())
        self.is_saved = True

    def save_or_warn(self) -> None:
        """Write it to the store. A store that fails ends no run: the network stays in memory for another `save`."""
        try:
            self.save()
        except OSError as error:
            log.warning("model_not_saved", error=str(error))


def check_room(store: Store, state_elements: int) -> None:
    """Raise `BadConfig` if a network of so many elements could not be written to the store now."""
    store.check(ROOM_BYTES + 4 * state_elements)
