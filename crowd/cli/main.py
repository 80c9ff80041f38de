"""The `crowd` command. Each subcommand is a file of its own, imported only when it is called.

Exit codes: 0 done, 1 target not reached, 2 bad input (one line), 3 internal error, 130 interrupted, 141 nobody reads
the output any more.
"""

import os
import sys
import traceback
from collections.abc import Sequence

import cyclopts

import crowd
from crowd.config.hints import did_you_mean
from crowd.errors import BAD_INPUT, DONE, INTERNAL_ERROR, INTERRUPTED, NOBODY_READS, Rejected, innermost

_COMMANDS = {
    "demo": ("crowd.cli.demo.command:demo", "Train on emulated unequal devices and compare with other ways to do it."),
    "node": ("crowd.cli.node:node", "Run this device."),
    "train": ("crowd.cli.train:train", "Begin the next run of a cluster that has ended one."),
    "runs": ("crowd.cli.runs:runs", "List the runs that a device has ended."),
    "keys": ("crowd.cli.keys:app", "Make and show device keys."),
    "plan": ("crowd.cli.plan:plan", "Print what a cluster would do and why, and train nothing."),
    "sim": ("crowd.cli.sim:sim", "Simulate one training of a cluster."),
    "bench": ("crowd.cli.bench.command:bench", "Compare policies on many clusters, in simulation."),
    "lab": ("crowd.cli.lab:lab", "Train as a cluster of real processes, and compare with the simulation."),
    "export": ("crowd.cli.export:export", "Write a device's trained model to a file, for use elsewhere."),
}


def make_app() -> cyclopts.App:
    """The command line; making it imports no subcommand."""
    app = cyclopts.App(
        name="crowd",
        help="Train a neural network together on the devices you already own.",
        version=crowd.__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, (path, help_text) in _COMMANDS.items():
        app.command(path, name=name, help=help_text)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the process's own) name; returns the exit code."""
    try:
        result = make_app()(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:
        if _nobody_reads(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries again at its end
            return NOBODY_READS
        if not isinstance(error, Exception):
            raise
        return report(error)
    return result if isinstance(result, int) else DONE


def report(error: BaseException) -> int:
    """Say on standard error what went wrong; returns the exit code."""
    match error:
        case cyclopts.UnknownCommandError(unused_tokens=[word, *_], app=cyclopts.App() as app):
            # Its own message would import every subcommand.
            known = [name for name in app if not name.startswith("-")]
            return _bad_input(f"unknown command {word!r}; {did_you_mean(word, known)}")
        case Rejected() | cyclopts.CycloptsError():
            return _bad_input(str(error))
        case ExceptionGroup() if (rejected := _only_rejected(error)) is not None:
            # Tasks that run side by side fail as a group; what is to mend is in the first.
            return report(rejected)
        case _:
            traceback.print_exception(error)
            return INTERNAL_ERROR


def _nobody_reads(error: BaseException) -> bool:
    """Whether an output that is a pipe has lost its reader. rich makes a `SystemExit` of that."""
    if isinstance(error, BaseExceptionGroup):
        return any(_nobody_reads(inner) for inner in error.exceptions)
    return isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError)


def _bad_input(message: str) -> int:
    print(f"crowd: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def _only_rejected(group: "ExceptionGroup[Exception]") -> BaseException | None:
    """The first error of `group` if all are bad input, else `None`."""
    rejected, others = group.split(Rejected)
    if rejected is None or others is not None:
        return None
    return innermost(rejected)
