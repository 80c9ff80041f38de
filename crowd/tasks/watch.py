"""Shoulder exercises told apart by a smartwatch, and a 1-D convolutional network.

140 recordings by 10 subjects, 7 exercises, 3 axes of acceleration and 3 of rotation at 50 Hz (Burns et al.,
arXiv:1802.01489; how the file was made: `docs/convert_watch.py`). Windows of 2 s, one beginning each second: 3,203 from
the first 70 % of every recording to train, 1,255 from the rest to evaluate; none crosses the border.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crowd.learning.task import Task
from crowd.tasks.partition import Partition
from crowd.tasks.recipe import LabelledSamples, sgd
from crowd.tasks.scale import Scale

_FILE = Path(__file__).parent / "data" / "watch.npz"
_WINDOW = 100
_STEP = 50


def task(device: str, part: Partition) -> Task:
    """The smartwatch task, with the windows that `device` plays the owner of; with parts by subject, all windows of its
    subjects."""
    train, evaluation = _samples()
    return Task(
        name="watch",
        model=network,
        data=train.part(part),
        evaluation=evaluation.dataset(),
        optimizer=sgd,
        target=0.91,
        epochs_max=120,
    )


def network() -> torch.nn.Module:
    """The network: from (batch, 6, 100) float16 readings to (batch, 7) float32 logits; 32,295 parameters."""
    return torch.nn.Sequential(
        Scale(1.0),
        torch.nn.Conv1d(6, 32, kernel_size=5, padding=2),
        torch.nn.ReLU(),
        torch.nn.Conv1d(32, 64, kernel_size=5, padding=2),
        torch.nn.ReLU(),
        torch.nn.Conv1d(64, 64, kernel_size=5, padding=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),  # (batch, 64)
        torch.nn.Linear(64, 7),
    )


@functools.cache
def _samples() -> tuple[LabelledSamples, LabelledSamples]:
    """Training and evaluation windows, float16 (samples, 6, 100), decoded once for each process."""
    with np.load(_FILE, allow_pickle=False) as file:
        readings, lengths, labels, subjects = (file[name] for name in ("readings", "lengths", "labels", "subjects"))
    recordings = np.split(readings, np.cumsum(lengths)[:-1], axis=1)
    borders = [int(length) * 7 // 10 for length in lengths]
    return (
        _windows([whole[:, :border] for whole, border in zip(recordings, borders, strict=True)], labels, subjects),
        _windows([whole[:, border:] for whole, border in zip(recordings, borders, strict=True)], labels, subjects),
    )


def _windows(
    recordings: list[NDArray[np.float16]], labels: NDArray[np.uint8], subjects: NDArray[np.uint8]
) -> LabelledSamples:
    """All whole windows of each recording, (6, readings), with the recording's label and subject."""
    counts = [(recording.shape[1] - _WINDOW) // _STEP + 1 for recording in recordings]
    windows = [
        recording[:, start * _STEP : start * _STEP + _WINDOW]
        for recording, count in zip(recordings, counts, strict=True)
        for start in range(count)
    ]
    return LabelledSamples(
        inputs=torch.from_numpy(np.stack(windows)),
        labels=torch.from_numpy(np.repeat(labels, counts).astype(np.int64)),
        subjects=torch.from_numpy(np.repeat(subjects, counts).astype(np.int64)),
    )
