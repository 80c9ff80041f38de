import os
import subprocess
import sys
from pathlib import Path

import pytest

from crowd.cli import main as command_line
from crowd.cli.main import main
from crowd.errors import BadConfig, BrokerLost

CLUSTER = Path(__file__).parents[2] / "examples" / "clusters" / "all-pis.toml"
RUN = "import sys; from crowd.cli.main import main; sys.exit(main())"


def interrupted() -> None:
    raise KeyboardInterrupt


def broken() -> None:
    raise RuntimeError("a bug")


def refused() -> None:
    raise ExceptionGroup("tasks", [ExceptionGroup("deeper", [BadConfig("the file\nis wrong")])])


def partly_refused() -> None:
    raise ExceptionGroup("tasks", [BadConfig("the file is wrong"), RuntimeError("a bug")])


def lost() -> None:
    raise BrokerLost("gone")


def short_of_the_target() -> int:
    return 1


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that end in every way there is."""
    for command in (interrupted, broken, refused, partly_refused, lost, short_of_the_target):
        name = command.__name__.replace("_", "-")
        monkeypatch.setitem(command_line._COMMANDS, name, (f"{__name__}:{command.__name__}", ""))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "--tusk", "digits"], "Unknown option: --tusk. Did you mean --task?"),
        (["plan"], "requires an argument"),
        (["plam"], "unknown command 'plam'; did you mean 'plan'?"),
        (["keys", "shaw"], "unknown command 'shaw'; did you mean 'show'?"),
        (["plan", "cluster.toml"], "cluster.toml: no such file"),
        (["refused"], "crowd: the file is wrong"),
    ],
)
def test_bad_input_is_one_line_on_standard_error(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("crowd: ")
    assert error.count("\n") == 1
    assert expected in error


@pytest.mark.parametrize("arguments", [["broken"], ["partly-refused"], ["lost"]])
def test_an_internal_error_shows_its_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interrupted"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments",
    [["plan", "--task", "digits"], ["sim", "--task", "digits", "--rounds-max", "2"]],
    ids=["plan", "sim"],
)
def test_an_output_that_nobody_reads_any_more_ends_a_command_quietly(arguments: list[str]) -> None:
    name, *options = arguments
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, str(CLUSTER), *options],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_command_may_say_how_it_ended() -> None:
    assert main(["short-of-the-target"]) == 1


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    for name in ("demo", "node", "keys", "plan", "sim", "export"):
        assert f" {name} " in output
