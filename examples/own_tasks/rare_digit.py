"""An imbalanced classification: which of all handwritten digits are eights.

    crowd sim ../clusters/smart-home.toml --task rare_digit:task

Nine images of ten are not, so a network that never says so is right in 90 %: by the mean of both classes' F1 scores it
has 47 %. scikit-learn's 1,797 images of 8×8 pixels; 1,437 of them in seven homes, 360 to evaluate.
"""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import crowd

HOME = ("camera-hub", "doorbell", "gateway", "mini-pc", "phone-new", "phone-old", "thermostat")


def task(device: str) -> crowd.Task:
    return crowd.Task(
        name="rare-digit",
        model=network,
        data=images(device),
        evaluation=images(None),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        loss=torch.nn.functional.cross_entropy,
        metric=crowd.metrics.MacroF1(),
        patience=15,
        epochs_max=60,
    )


def network() -> torch.nn.Module:
    """From pixels (batch, 64) to logits for "no" and "yes" (batch, 2)."""
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))


def images(device: str | None) -> TensorDataset:
    """The images of one home; `None`: those to evaluate."""
    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    rows = order[:360] if device is None else order[360:][HOME.index(device) :: len(HOME)]
    return TensorDataset(torch.from_numpy(pixels).float()[rows] / 16.0, torch.from_numpy(digits == 8).long()[rows])
