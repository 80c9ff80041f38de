"""How `crowd train` reaches the node that runs: files in its `state_dir`, one with what is asked for and one with the
answer."""

import json
import os
import secrets
import sys
from collections.abc import Callable
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
    from crowd.cli.new_data import NewData
    from crowd.node import Node

QUESTION_FILE = "train.asked"
ANSWER_FILE = "train.answer"
LOOK_S = 0.5
"""How often each side looks for the other's file."""
TAKE_S = 20.0
"""How long a node may take to see a question."""
SOON_S = 5.0
"""How long it may then take to answer before somebody wonders."""
ANSWER_S = 600.0
"""How long it may take to read its data anew."""

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
        return anyio.run(_answered, state_dir, question.number)
    except OSError as error:
        raise BadConfig(f"{state_dir}: cannot be written to: {error.strerror}; are you the node's user?") from error
    finally:
        for name in (QUESTION_FILE, ANSWER_FILE):
            (state_dir / name).unlink(missing_ok=True)


async def _answered(state_dir: Path, number: str) -> Reply | None:
    def taken() -> bool:
        return not (state_dir / QUESTION_FILE).exists()

    def reply() -> Reply | None:
        found = _read(state_dir / ANSWER_FILE, Reply)
        return found if found is not None and found.number == number else None

    if not await _awaited(taken, TAKE_S):
        return None
    answer = await _awaited(reply, SOON_S)
    if answer is None:
        print("the node reads its data anew", file=sys.stderr)
        answer = await _awaited(reply, ANSWER_S)
    return answer


async def _awaited(look: Callable[[], T], limit_s: float) -> T | None:
    """What `look` has found; `None` if it finds nothing in all that time."""
    with anyio.move_on_after(limit_s):
        while True:
            if found := await anyio.to_thread.run_sync(look):
                return found
            await anyio.sleep(LOOK_S)
    return None


# --- who is asked -----------------------------------------------------------------------------------------------------


async def answer(node: "Node", state_dir: Path, new_data: "NewData | None") -> None:
    """Do what is asked for in this directory, as long as this runs. What was asked before it began is void: nobody
    waits for it any more. Before a run begins it is looked for new data, so that it trains what is there when
    somebody asks for it."""
    path = state_dir / QUESTION_FILE
    await anyio.to_thread.run_sync(_taken, path)
    while True:
        await anyio.sleep(LOOK_S)
        question = await anyio.to_thread.run_sync(_taken, path)
        if question is not None:
            if node.is_over and new_data is not None:
                await new_data.look_now()
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
