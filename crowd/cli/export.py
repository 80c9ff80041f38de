"""`crowd export`: the trained model, for use elsewhere."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from crowd import plugins
from crowd.cli.files import check_writable, state_store
from crowd.config.node_file import MODEL_FILE, NodeConfig, read_node_config
from crowd.errors import BadConfig
from crowd.formatting import quality
from crowd.model_card import CARD_FILE, ModelCard

if TYPE_CHECKING:
    from crowd.learning.program import Program

PARAMETERS, PROGRAM = ".safetensors", ".pt2"


def export(*, to: Path, state_dir: Path | None = None, config: Path | None = None) -> None:
    """Write a device's trained model to a file, for use elsewhere, and what is known of it beside that.

    Parameters
    ----------
    to
        The file to write: NAME.safetensors, the parameters by their names, or NAME.pt2, a program that torch runs
        without the network's own code. The model's card is NAME.json. Files that exist are replaced.
    state_dir
        The state_dir of the device's node.toml: enough for the parameters.
    config
        The device's node.toml: needed for a program, which is made of the task's network.
    """
    _check_arguments(to, state_dir, config)
    settings = None if config is None else read_node_config(config)
    folder = state_dir if settings is None else settings.state_dir
    assert folder is not None, "_check_arguments wants one"
    stored = _stored(folder)
    card_file = to.with_suffix(".json")
    check_writable(to)
    check_writable(card_file)
    program = _program(settings, stored) if settings is not None and to.suffix == PROGRAM else None
    data = stored.model if program is None else program.data
    _write(to, data)
    print(f"{to}: {len(data):,} bytes, of the run that ended on {stored.ended:%Y-%m-%d %H:%M}")
    if program is not None:
        print(f"{to}: {_inputs_in_words(program)}")
    if stored.card is None:
        print(f"{card_file}: not written, for {stored.without_card}")
    else:
        _write(card_file, stored.card.to_bytes())
        print(f"{card_file}: {_in_words(stored.card)}")


def _check_arguments(to: Path, state_dir: Path | None, config: Path | None) -> None:
    if to.suffix not in (PARAMETERS, PROGRAM):
        raise BadConfig(f"{to}: expected a name that ends in {PARAMETERS} (parameters) or {PROGRAM} (a program)")
    if (state_dir is None) == (config is None):
        raise BadConfig("give one of --state-dir, a device's state_dir, and --config, its node.toml")
    if to.suffix == PROGRAM and config is None:
        raise BadConfig(f"{to}: a program is made of the task's network: give --config node.toml, not --state-dir")


# --- what the device has ----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Stored:
    """A device's trained model, as it is in its state directory."""

    folder: Path
    model: bytes = attrs.field(repr=False)
    ended: datetime
    """When its run ended."""
    card: ModelCard | None
    without_card: str = ""
    """Why there is none."""


def _stored(folder: Path) -> _Stored:
    store = state_store(folder)
    try:
        model, card = store.read(MODEL_FILE), store.read(CARD_FILE)
        if model is None:
            raise BadConfig(f"{folder}: there is no trained model yet; it is written when a run ends")
        written = datetime.fromtimestamp((folder / MODEL_FILE).stat().st_mtime)
    except OSError as error:
        raise BadConfig(f"{folder}: cannot be read: {error.strerror}") from error
    if card is None:
        return _Stored(folder=folder, model=model, ended=written, card=None, without_card=f"{folder} has no card")
    try:
        known = ModelCard.from_bytes(card, folder / CARD_FILE)
    except BadConfig as error:
        return _Stored(folder=folder, model=model, ended=written, card=None, without_card=str(error))
    if known != known.of_file(model):
        why = f"{folder / CARD_FILE} is of another file than {MODEL_FILE}, or one of the two is damaged"
        return _Stored(folder=folder, model=model, ended=written, card=None, without_card=why)
    return _Stored(folder=folder, model=model, ended=known.time, card=known)


def _in_words(card: ModelCard) -> str:
    value = "no value known" if card.value is None else f"{quality(card.metric, card.value)} {card.metric}"
    return f"task {card.task}, run {card.run} of {card.cluster}, {value}, digest {card.digest}"


# --- what becomes of it -----------------------------------------------------------------------------------------------


def _program(settings: NodeConfig, stored: _Stored) -> "Program":
    import safetensors.torch

    from crowd.learning.program import as_program, few_inputs, load_trained
    from crowd.learning.work import network_of

    task = plugins.make_task(settings.task, settings.name, settings.data)
    network = network_of(task)
    try:
        load_trained(network, safetensors.torch.load(stored.model))
    except safetensors.SafetensorError as error:
        raise BadConfig(f"{stored.folder / MODEL_FILE}: it is damaged: {error}; let the device train anew") from error
    except BadConfig as error:
        of = "" if stored.card is None else f", which is of task {stored.card.task!r}"
        raise BadConfig(
            f"{stored.folder / MODEL_FILE}{of}, does not fit the network of task {settings.task!r}: {error}; export it "
            "with the task that it was trained with"
        ) from error
    return as_program(network, few_inputs(task))


def _inputs_in_words(program: "Program") -> str:
    shape = ", ".join(map(str, ("samples" if program.batch is None else program.batch, *program.input_shape)))
    takes = f"takes {program.input_dtype} ({shape})"
    if program.batch is None:
        return f"{takes}, any number of samples at once"
    return f"{takes}, one sample at a time: forward fixes their number, as len(x) or a loop does; x.shape[0] does not"


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise BadConfig(f"{file}: cannot be written: {error.strerror}") from error
