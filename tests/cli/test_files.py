import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from crowd.cli.files import check_writable, write_runs
from crowd.cli.terminal import progress_to, round_words, verdict
from crowd.errors import BadConfig
from crowd.formatting import seconds, size
from crowd.logs import OnceAMinute, logs_to_stderr
from tests.bench.runs import run


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0.0, "0 ms"), (0.85, "850 ms"), (3.24, "3.2 s"), (99.0, "99.0 s"), (125.0, "2 min 5 s")],
)
def test_a_time_is_short(time_s: float, text: str) -> None:
    assert seconds(time_s) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1_400, "1.4 kB"), (20_000_000, "20.0 MB"), (3_000_000_000, "3.0 GB")],
)
def test_a_size_is_in_decimal_units(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "reached the target of 95.0%: 96.0% accuracy, 2 rounds, 3.0 s, 3.0 MB"),
        (
            {"target": None, "metric": "mean absolute error", "final_value": 43.712},
            "reached its end: 43.71 mean absolute error, 2 rounds, 3.0 s, 3.0 MB",
        ),
        ({"rounds": 1}, "reached the target of 95.0%: 96.0% accuracy, 1 round, 3.0 s, 3.0 MB"),
        ({"reached": False}, "did not reach the target of 95.0%: 96.0% accuracy, 2 rounds, 3.0 s, 3.0 MB"),
        (
            {"reached": False, "stopped_after_s": 3.0},
            "was stopped before the target of 95.0%: 96.0% accuracy, 2 rounds, 3.0 s, 3.0 MB",
        ),
        (
            {"reached": False, "diverged": True},
            "diverged before the target of 95.0%: 96.0% accuracy, 2 rounds, 3.0 s, 3.0 MB",
        ),
        ({"final_value": None}, "reached the target of 95.0%: nothing was evaluated, 2 rounds, 3.0 s, 3.0 MB"),
    ],
)
def test_how_a_run_went_is_a_line(values: dict[str, Any], words: str) -> None:
    assert verdict(run("ours", 3.0) | values) == words


@pytest.mark.parametrize(
    ("metric", "value", "loss", "words"),
    [
        ("accuracy", 0.9123, 0.41234, "round   7   91.2%  loss 0.412 "),
        ("mean absolute error", 43.712, None, "round   7   43.71             "),
        ("accuracy", None, 12.0, "round   7     -    loss 12    "),
    ],
)
def test_a_round_is_a_line_of_one_length(metric: str, value: float | None, loss: float | None, words: str) -> None:
    assert round_words(7, metric, value, loss) == words


@pytest.mark.parametrize(
    ("target", "value", "better", "part"),
    [
        (0.8, 0.4, "higher", 0.5),
        (2.0, 8.0, "lower", 0.25),
        (2.0, 1.0, "lower", 1.0),
        (0.5, -0.1, "higher", 0.0),
        (-1.0, -2.0, "higher", 0.0),
        (None, 0.4, "higher", 0.0),
        (0.8, None, "lower", 0.0),
    ],
)
def test_how_far_a_run_is_to_its_target_is_a_part_of_the_way(
    target: float | None, value: float | None, better: str, part: float
) -> None:
    assert progress_to(target, value, better=better) == part


def test_runs_are_written_as_json(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.json", [{"policy": "fedavg", "reached": True}])
    assert json.loads((tmp_path / "runs.json").read_text()) == {"runs": [{"policy": "fedavg", "reached": True}]}


def test_runs_that_cannot_be_written_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be written"):
        write_runs(tmp_path / "nowhere" / "runs.json", [])


def test_where_nothing_can_be_written_is_known_before_and_nothing_is_changed(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("before")
    for name in ("known", "new"):
        check_writable(tmp_path / name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"known": "before"}
    check_writable(Path("/dev/null"))
    for path, words in (("/proc/x", "cannot be written"), (tmp_path, "a directory"), ("nowhere/x", "no directory")):
        with pytest.raises(BadConfig, match=words):
            check_writable(Path(path))


def test_a_warning_that_differs_in_numbers_alone_is_said_once_a_minute_with_how_many_were_not() -> None:
    now_s = 0.0
    once = OnceAMinute(clock=lambda: now_s)

    def said(method: str, **event: Any) -> Mapping[str, Any] | None:
        try:
            return once(None, method, event)
        except structlog.DropEvent:
            return None

    held_up = {"event": "round_held_up", "by": "ada"}
    assert said("warning", **held_up, round=7) == {**held_up, "round": 7}
    now_s = 59.0
    assert said("warning", **held_up, round=8) is None
    assert said("warning", **held_up, round=9) is None
    assert said("warning", event="round_held_up", by="ben", round=9) is not None, "another's"
    assert said("info", **held_up) == said("info", **held_up) == held_up, "no warning"
    now_s = 60.0
    assert said("warning", **held_up, round=10) == {**held_up, "round": 10, "repeated": 2}
    now_s = 120.0
    assert said("warning", **held_up, round=11) == {**held_up, "round": 11}


@pytest.mark.parametrize(("verbose", "expected"), [(False, ["lost"]), (True, ["joined", "lost"])])
def test_logs_stay_out_of_the_result(verbose: bool, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        logs_to_stderr(verbose=verbose)
        log = structlog.get_logger()
        log.info("joined")
        log.warning("lost")
    finally:
        structlog.configure(**before)
    output, error = capsys.readouterr()
    assert output == ""
    assert [event for event in ("joined", "lost") if event in error] == expected
