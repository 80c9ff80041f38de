"""`crowd train`: the next run."""

from pathlib import Path
from typing import Annotated

import cyclopts

from crowd.cli.asked import ask
from crowd.cli.files import state_store
from crowd.config.node_file import read_node_config
from crowd.errors import BadConfig
from crowd.model_card import CARD_FILE, ModelCard


def train(*, config: Path, fresh: Annotated[bool, cyclopts.Parameter(negative="")] = False) -> None:
    """Begin the next run of a cluster that has ended one, on all its devices; on any of them, where its node runs.

    Parameters
    ----------
    config
        The device's node.toml.
    fresh
        Begin with a network that is drawn anew, and not with the present model.
    """
    state_dir = read_node_config(config).state_dir
    if not state_dir.is_dir():
        raise BadConfig(f"{state_dir}: no such directory: no node with {config} has run on this machine")
    card = state_store(state_dir).read(CARD_FILE)
    last = None if card is None else ModelCard.from_bytes(card, state_dir / CARD_FILE).run
    reply = ask(state_dir, follows=last, fresh=fresh)
    if reply is None:
        raise BadConfig(f"nobody answers in {state_dir}: start the node first, with crowd node --config {config}")
    if reply.run is None:
        raise BadConfig(f"{reply.why}: try again later")
    print(f"run {reply.run} begins, {'with a network that is drawn anew' if fresh else _from(last)}")


def _from(last: int | None) -> str:
    return "with the present model" if last is None else f"with the model of run {last}"
