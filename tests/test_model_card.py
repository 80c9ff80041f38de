"""What is known of a trained network, as JSON."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from crowd.errors import BadConfig
from crowd.model_card import ModelCard

PATH = Path("state/model.json")
CARD = ModelCard(
    task="mytask:task",
    cluster="home",
    run=2,
    metric="mean absolute error",
    better="lower",
    value=1.5,
    target=None,
    reached=True,
    rounds=20,
    epochs=12.25,
    samples_trained=4800,
    digest="5dbf1df35dfe9c943a8317ebd41af9d6",
    sha256=None,
    when="2026-11-30T22:06:14+01:00",
    data={"ada": 200, "zoë": 192},
    held=400,
    crowd_version="0.1.0",
    torch_version="2.13.0+cpu",
)


def changed(**values: Any) -> bytes:
    return json.dumps(json.loads(CARD.to_bytes()) | values).encode()


@pytest.mark.parametrize("card", [CARD, attrs.evolve(CARD, value=None, target=0.25, data=None, held=None, epochs=0.0)])
def test_a_card_comes_back_as_it_was(card: ModelCard) -> None:
    assert ModelCard.from_bytes(card.to_bytes(), PATH) == card
    assert ModelCard.from_bytes(b"\xef\xbb\xbf" + card.to_bytes(), PATH) == card, "as some editors write it"


def test_a_card_knows_the_file_that_it_lies_beside() -> None:
    beside = CARD.of_file(b"abc")
    assert beside.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert beside == CARD.of_file(b"abc") != CARD.of_file(b"abd")


def test_the_time_of_a_card_is_that_of_the_device_s_own_clock() -> None:
    assert CARD.time.hour == 22
    assert CARD.time.utcoffset() == timedelta(hours=1)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no valid JSON: Expecting value"),
        (b"\xff", "no valid JSON: 'utf-8' codec"),
        (b"[" * 100_000, "no valid JSON: "),
        (b"[]", "expected a table, found an array"),
        (changed(value=float("nan")), "no valid JSON: NaN is no number"),
        (changed(author="ada"), "unknown key 'author'"),
        (json.dumps({"task": "digits"}).encode(), "the key 'cluster' is missing"),
        (changed(run="2"), "run: expected a whole number, found '2'"),
        (changed(run=0), "run: expected at least 1, found 0"),
        (changed(better="more"), "better: expected 'higher' or 'lower', found 'more'"),
        (changed(reached=1), "reached: expected true or false, found 1"),
        (changed(epochs=-1), "epochs: expected a number of at least 0, found -1.0"),
        (changed(digest="5DBF"), "digest: expected 32 hexadecimal digits, found '5DBF'"),
        (changed(sha256="5dbf"), "sha256: expected 64 hexadecimal digits, found '5dbf'"),
        (changed(when="2026-11-30T22:06:14"), "when: expected a time as '2026-11-30T22:06:14+01:00'"),
        (changed(when="yesterday"), "when: expected a time as '2026-11-30T22:06:14+01:00', found 'yesterday'"),
        (changed(data={"ada": 0}), "data: expected numbers of samples above 0"),
        (changed(data={"ada": 1.5}), "data.ada: expected a whole number, found 1.5"),
    ],
)
def test_what_is_no_card_is_one_line_that_names_the_file_and_what_is_wrong(data: bytes, complaint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        ModelCard.from_bytes(data, PATH)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{PATH}: {complaint}")


def test_cards_are_read_without_torch() -> None:
    code = "import crowd.model_card, sys; assert not {'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
