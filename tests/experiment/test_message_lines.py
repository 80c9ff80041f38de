import json

import attrs
import pytest

from crowd.experiment.message_lines import MessageLines


@attrs.frozen(kw_only=True)
class Piece:
    began_s: float


@attrs.frozen(kw_only=True)
class Trained:
    pieces: tuple[Piece, ...]
    accuracy: float | None = None


@attrs.frozen(kw_only=True)
class Over:
    pass


@attrs.frozen(kw_only=True)
class Unknown:
    pass


LINES = MessageLines[Trained | Over](Trained | Over)


@pytest.mark.parametrize(
    "message", [Trained(pieces=(Piece(began_s=0.25), Piece(began_s=1.0))), Trained(pieces=(), accuracy=0.5), Over()]
)
def test_what_one_process_says_the_other_hears(message: Trained | Over) -> None:
    line = LINES.to_line(message)
    assert "\n" not in line
    assert LINES.from_line(line) == message


def test_a_single_class_needs_no_union() -> None:
    lines = MessageLines[Over](Over)
    assert lines.from_line(lines.to_line(Over())) == Over()


@pytest.mark.parametrize(
    "line", [MessageLines[Unknown](Unknown).to_line(Unknown()), json.dumps({"_type": "Over", "more": 1}), "{}", "over"]
)
def test_what_none_of_them_wrote_is_an_error(line: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  # whatever: a bug
        LINES.from_line(line)
