"""The end of a run where its model could not be saved: `keep_trying`."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import structlog

from crowd.errors import BadConfig

if TYPE_CHECKING:
    from crowd.trained import TrainedModel

PAUSES_S = (1.0, 2.0, 4.0)
"""Waits before the model is tried again; what lasts longer needs somebody."""
PAUSE_S_MAX = 60.0

log = structlog.get_logger()


async def keep_trying(trained: "TrainedModel", state_dir: Path, *, once: bool) -> None:
    """Return when the trained network is in `state_dir`, at once if it is there already. If it still is not after
    `PAUSES_S`, write it elsewhere too; with `once` raise `BadConfig` then, which says where it is."""
    for pause_s in PAUSES_S:
        if await _is_saved(trained):
            return
        await anyio.sleep(pause_s)
    if await _is_saved(trained):
        return
    elsewhere = await anyio.to_thread.run_sync(_save_elsewhere, trained)
    if once:
        raise BadConfig(f"the trained model cannot be written to {state_dir}; it is in {elsewhere}: move it from there")
    log.warning("model_saved_elsewhere", state_dir=str(state_dir), elsewhere=str(elsewhere))
    while True:
        await anyio.sleep(PAUSE_S_MAX)
        if await _is_saved(trained):
            return


async def _is_saved(trained: "TrainedModel") -> bool:
    if not trained.is_saved:
        await anyio.to_thread.run_sync(trained.save_or_warn)
    return trained.is_saved


def _save_elsewhere(trained: "TrainedModel") -> Path:
    """Write the network into the working directory, or else into that for temporary files. Raises `BadConfig` if
    neither takes it."""
    data = trained.to_bytes()
    causes = []
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            descriptor, name = tempfile.mkstemp(prefix="crowd-model-", suffix=".safetensors", dir=folder)
        except OSError as error:
            causes.append(f"{folder}: {error.strerror}")
            continue
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            Path(name).unlink()
            causes.append(f"{folder}: {error.strerror}")
            continue
        return Path(name)
    raise BadConfig(f"the trained model cannot be written anywhere ({', '.join(causes)}) and is lost: make room")
