"""What every message declares in its class statement: the tag under which it travels, and whom it is for."""

from typing import ClassVar


class Tagged:
    """What travels under a `tag`, by which the receiver knows its class: `class Beat(ToPlanner, tag="beat")`."""

    __slots__ = ()
    tag: ClassVar[str]

    def __init_subclass__(cls, tag: str | None = None) -> None:
        if tag is not None:  # attrs makes each class a second time, of what the first one had
            cls.tag = tag


class ToPlanner(Tagged):
    """A message about agreement."""

    __slots__ = ()


class ToDataMover(Tagged):
    """A message about transfers and published slices."""

    __slots__ = ()


class ToTrainer(Tagged):
    """A message about samples, states and rounds; the data mover passes it on."""

    __slots__ = ()
