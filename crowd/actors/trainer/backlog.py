"""What a trainer is told while its local steps stand still: `Backlog`."""

from collections import OrderedDict

from crowd.actors import inbox
from crowd.actors.inbox import TrainerMessage

BACKLOG_MAX = 256
"""Messages that are kept; of what goes beyond, the oldest of those that are sent again when asked for is dropped."""

_SENT_AGAIN = (
    inbox.ContributionArrived,
    inbox.MergedArrived,
    inbox.ParametersArrived,
    inbox.SamplesArrived,
    inbox.StateArrived,
    inbox.SamplesAsked,
    inbox.StateAsked,
    inbox.SliceNotHere,
)


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
            oldest = (number for number, kept in self._messages.items() if isinstance(kept, _SENT_AGAIN))
            self._messages.pop(next(oldest, -1), None)

    def next(self) -> TrainerMessage | None:
        """The oldest message, which is taken out; `None` without any."""
        return self._messages.popitem(last=False)[1] if self._messages else None
