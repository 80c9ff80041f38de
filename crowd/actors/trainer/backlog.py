"""What a trainer is told too early: while its local steps stand still (`Backlog`), or about a generation or a round
that has not begun here yet (`place_of`)."""

from collections import OrderedDict

from crowd.actors import inbox
from crowd.actors.inbox import TrainerMessage
from crowd.protocol.messages import AskSamples, Contribution, MergedSlice, Parameters, Revoke

BACKLOG_MAX = 256
"""Messages that are kept; of what goes beyond, the oldest of those that are sent again when asked for is dropped."""

EARLY_MAX = 256
"""Messages that are kept for what has not begun here yet: others may be a moment ahead."""


class Backlog:
    """Messages in the order in which they came. What the planner decides is always kept: it is little."""

    def __init__(self) -> None:
        self._messages: OrderedDict[int, TrainerMessage] = OrderedDict()
        self._came = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: TrainerMessage) -> None:
        self._messages[self._came] = message
        self._came += 1
        if len(self._messages) > BACKLOG_MAX:
            oldest = (number for number, kept in self._messages.items() if _is_sent_again(kept))
            self._messages.pop(next(oldest, -1), None)

    def next(self) -> TrainerMessage | None:
        """The oldest message, which is taken out; `None` without any."""
        return self._messages.popitem(last=False)[1] if self._messages else None


def _is_sent_again(message: TrainerMessage) -> bool:
    match message:
        case inbox.Heard(message=heard):
            return not isinstance(heard, Revoke)
        case _:
            return isinstance(message, inbox.Arrived)


def place_of(message: TrainerMessage) -> tuple[int, int] | None:
    """The generation that another device means, and the round (0: any of it), before which `message` cannot be
    understood; `None` without one. Merged slices tell how far others are, whether their round has begun here or
    not."""
    match message:
        case inbox.Arrived(cargo=Contribution(key=key)):
            return key.generation, key.round
        case inbox.Arrived(cargo=MergedSlice(key=key)):
            return key.generation, 0
        case (
            inbox.Arrived(cargo=Parameters(generation=generation))
            | inbox.Heard(message=AskSamples(generation=generation))
        ):
            return generation, 0
        case _:
            return None
