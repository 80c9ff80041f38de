"""How a part of the trainer has something run beside it: `Beside`."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from crowd.actors.inbox import TrainerMessage

Task: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""What runs beside the trainer; it is given what to call at its end."""
Beside: TypeAlias = Callable[[Task, TrainerMessage], None]
"""A function that starts such a task; the trainer hears the message when the task says that it has ended."""
