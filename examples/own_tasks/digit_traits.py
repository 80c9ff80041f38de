"""Several labels at once: of a handwritten digit, whether it is even, is prime, and has a closed loop.

    crowd sim ../clusters/smart-home.toml --task digit_traits:task

scikit-learn's 1,797 images of 8×8 pixels; 1,437 of them in seven homes, 360 to evaluate. Labels are 0.0 or 1.0, a
column for each trait; the metric is the mean of the columns' F1 scores.
"""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import crowd

HOME = ("camera-hub", "doorbell", "gateway", "mini-pc", "phone-new", "phone-old", "thermostat")
EVEN, PRIME, LOOPED = (0, 2, 4, 6, 8), (2, 3, 5, 7), (0, 4, 6, 8, 9)


def task(device: str) -> crowd.Task:
    return crowd.Task(
        name="digit-traits",
        model=network,
        data=images(device),
        evaluation=images(None),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9),
        loss=torch.nn.functional.binary_cross_entropy_with_logits,
        metric=crowd.metrics.MacroF1(),
        patience=15,
        epochs_max=60,
    )


def network() -> torch.nn.Module:
    """From pixels (batch, 64) to a logit for each trait (batch, 3)."""
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))


def images(device: str | None) -> TensorDataset:
    """The images of one home; `None`: those to evaluate."""
    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    rows = order[:360] if device is None else order[360:][HOME.index(device) :: len(HOME)]
    traits = [[float(digit in trait) for trait in (EVEN, PRIME, LOOPED)] for digit in digits]
    return TensorDataset(torch.from_numpy(pixels).float()[rows] / 16.0, torch.tensor(traits)[rows])
