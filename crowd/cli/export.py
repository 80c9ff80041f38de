"""`crowd export`: the trained model, for use elsewhere."""

from datetime import datetime
from pathlib import Path

from crowd import plugins
from crowd.config.node_file import MODEL_FILE
from crowd.errors import BadConfig


def export(*, state_dir: Path, to: Path) -> None:
    """Copy the trained model out of a device's state directory.

    Parameters
    ----------
    state_dir
        The state_dir of the device's node.toml.
    to
        The safetensors file to write; one that exists is replaced.
    """
    if not state_dir.is_dir():
        raise BadConfig(f"{state_dir}: no such directory; give the state_dir of a device's node.toml")
    store = plugins.stores.load("file")(state_dir)
    model = store.read(MODEL_FILE)
    if model is None:
        raise BadConfig(f"{state_dir}: there is no trained model yet; it is written when a run ends")
    try:
        to.write_bytes(model)
    except OSError as error:
        raise BadConfig(f"{to}: cannot be written: {error.strerror}") from error
    written = datetime.fromtimestamp((state_dir / MODEL_FILE).stat().st_mtime).isoformat(" ", "minutes")
    print(f"{to}: {len(model):,} bytes, of the run that ended on {written}")
