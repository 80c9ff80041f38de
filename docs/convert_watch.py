"""Makes `crowd/tasks/data/watch.npz` from the data set in the package seglearn 1.2.5 (D. M. Burns, 3-clause BSD).

    pip download --no-deps seglearn==1.2.5
    unzip seglearn-1.2.5-*.whl seglearn/data/watch_dataset.npy
    python docs/convert_watch.py seglearn/data/watch_dataset.npy crowd/tasks/data/watch.npz

140 recordings (10 subjects, 2 sides, 7 exercises), 6 channels at 50 Hz: acceleration x, y, z and angular velocity x, y,
z. Each channel is shifted and scaled by the mean and standard deviation of the first 70 % of every recording (the part
that `watch` trains on), then rounded to float16. The arrays of the result:

    readings  float16 (6, 244102)  all recordings, one after the other
    lengths   int32 (140,)         readings in each
    labels    uint8 (140,)         the exercise
    subjects  uint8 (140,)         who wore the watch, from 1
    names     str (7,)             of the exercises

The original is a pickle, so it is opened only if its digest is the one below; the result needs no pickle.
"""

import hashlib
import io
import sys
from pathlib import Path

import numpy as np

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"


def convert(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"{source} is not the file of seglearn 1.2.5")
    original = np.load(io.BytesIO(content), allow_pickle=True).item()
    recordings = original["X"]
    train = np.concatenate([recording[: len(recording) * 7 // 10] for recording in recordings])
    readings = (np.concatenate(recordings) - train.mean(axis=0)) / train.std(axis=0)
    np.savez_compressed(
        target,
        readings=readings.T.astype(np.float16),
        lengths=np.array([len(recording) for recording in recordings], dtype=np.int32),
        labels=original["y"].astype(np.uint8),
        subjects=original["subject"].astype(np.uint8),
        names=np.array(original["y_labels"]),
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
