"""How `crowd train` reaches the node that runs: files in its `state_dir`, one with what is asked for and one with the
answer."""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
import attrs
import structlog

from crowd.config.toml import structure
from crowd.errors import BadConfig, Retryable, RunRefused
from crowd.whole_files import write_whole

if TYPE_CHECKING:
    from crowd.node import Node

QUESTION_FILE = "train.asked"
ANSWER_FILE = "train.answer"
LOOK_S = 0.5
"""How often each side looks for the other's file."""
ANSWER_S = 20.0
"""How long a node may take to answer."""

log = structlog.get_logger()

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Question:
    """What `crowd train` asks for."""

    number: str
    """Drawn, so that an answer is known to be to this one."""
    follows: int | None
    """The run that the new one is to follow; `None`: not known."""
    fresh: bool


@attrs.frozen(kw_only=True)
class Reply:
    """What a node has made of it."""

    number: str
    run: int | None
    """The run that has begun, or had begun before; `None`: none has."""
    why: str
    """Why none has."""


# --- who asks ---------------------------------------------------------------------------------------------------------


def ask(state_dir: Path, *, follows: int | None, fresh: bool) -> Reply | None:
    """Ask the node of this directory for the next run, and wait for what it says; `None`: nobody answers. Raises
    `BadConfig` if the directory cannot be written to."""
    question = Question(number=secrets.token_hex(8), follows=follows, fresh=fresh)
    try:
        _write(state_dir / QUESTION_FILE, question)
        return anyio.run(_answered, state_dir / ANSWER_FILE, question.number)
    except OSError as error:
        raise BadConfig(f"{state_dir}: cannot be written to: {error.strerror}; are you the node's user?") from error
    finally:
        for name in (QUESTION_FILE, ANSWER_FILE):
            (state_dir / name).unlink(missing_ok=True)


async def _answered(path: Path, number: str) -> Reply | None:
    with anyio.move_on_after(ANSWER_S):
        while True:
            reply = await anyio.to_thread.run_sync(_read, path, Reply)
            if isinstance(reply, Reply) and reply.number == number:
                return reply
            await anyio.sleep(LOOK_S)
    return None


# --- who is asked -----------------------------------------------------------------------------------------------------


async def answer(node: "Node", state_dir: Path) -> None:
    """Do what is asked for in this directory, as long as this runs. What was asked before it began is void: nobody
    waits for it any more."""
    path = state_dir / QUESTION_FILE
    await anyio.to_thread.run_sync(_taken, path)
    while True:
        await anyio.sleep(LOOK_S)
        question = await anyio.to_thread.run_sync(_taken, path)
        if question is not None:
            reply = await _done(node, question)
            log.info("train_asked", run=reply.run, why=reply.why or None)
            try:
                await anyio.to_thread.run_sync(_write, state_dir / ANSWER_FILE, reply)
            except OSError as error:
                log.warning("answer_not_written", error=str(error))


async def _done(node: "Node", question: Question) -> Reply:
    try:
        run = await node.train(fresh=question.fresh, follows=question.follows)
    except (RunRefused, Retryable) as error:
        return Reply(number=question.number, run=None, why=str(error))
    return Reply(number=question.number, run=run, why="")


def _taken(path: Path) -> Question | None:
    """What is asked for, once."""
    if not os.path.exists(path):  # or it cannot be told: a disk that fails ends no node
        return None
    try:
        question = _read(path, Question)
        path.unlink(missing_ok=True)
    except (BadConfig, OSError) as error:
        log.warning("question_not_read", error=str(error))
        with suppress(OSError):  # then it is complained of again
            path.unlink(missing_ok=True)
        return None
    return question


# --- the files --------------------------------------------------------------------------------------------------------


def _write(path: Path, content: Question | Reply) -> None:
    write_whole(path, json.dumps(attrs.asdict(content)).encode(), draft=path.with_name(f".{path.name}.new"))
    os.chmod(path, 0o644)  # the node may run as another user


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return structure(json.loads(path.read_bytes()), kind, path=path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadConfig(f"{path}: no valid JSON: {error}") from error
