"""How a part of the trainer has something run beside it: `Beside`."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from crowd.actors.inbox import TrainerMessage

Job: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""What runs beside the trainer; it is given what to call at its end."""
Beside: TypeAlias = Callable[[Job, TrainerMessage], None]
"""A function that starts such a job; the trainer hears the message when the job says that it has ended."""
