"""A regression: how far diabetes has progressed a year after ten figures of a patient were taken.

    crowd sim ../clusters/smart-home.toml --task diabetes:task

442 patients (Efron et al., Annals of Statistics 32, 2004), which come with scikit-learn; 354 of them at seven
practices, 88 to evaluate. Labels are floating-point numbers of the outputs' shape. There is no target: the run ends
after thirty evaluations without an improvement, and keeps the best state.
"""

import torch
from sklearn.datasets import load_diabetes
from torch.utils.data import TensorDataset

import crowd

HOME = ("camera-hub", "doorbell", "gateway", "mini-pc", "phone-new", "phone-old", "thermostat")


def task(device: str) -> crowd.Task:
    return crowd.Task(
        name="diabetes",
        model=network,
        data=patients(device),
        evaluation=patients(None),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.002, momentum=0.9),
        loss=torch.nn.functional.mse_loss,
        metric=crowd.metrics.MeanAbsoluteError(),
        patience=30,
        epochs_max=200,
    )


def network() -> torch.nn.Module:
    """From ten figures (batch, 10) to the progression in hundreds (batch, 1)."""
    return torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


def patients(device: str | None) -> TensorDataset:
    """The patients of one practice; `None`: those to evaluate."""
    figures, progression = load_diabetes(return_X_y=True)
    order = torch.randperm(len(figures), generator=torch.Generator().manual_seed(0))
    rows = order[:88] if device is None else order[88:][HOME.index(device) :: len(HOME)]
    inputs = torch.from_numpy(figures).float() * len(figures) ** 0.5  # columns of a standard deviation of 1
    labels = torch.from_numpy(progression).float()[:, None] / 100.0
    return TensorDataset(inputs[rows], labels[rows])
