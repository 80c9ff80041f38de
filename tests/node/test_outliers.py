"""A member whose arithmetic has gone wrong does not end the training of all."""

import torch
from structlog.testing import capture_logs

import crowd
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually
from tests.learning.nets import CLASSES, FEATURES, dataset, separable

DEVICES = ("ada", "ben", "cem", "dia")


def network(device: str) -> torch.nn.Module:
    """On `dia` gradients are large and point the wrong way."""
    network = torch.nn.Linear(FEATURES, CLASSES)
    if device == "dia":
        for parameter in network.parameters():
            parameter.register_hook(lambda gradient: -50 * gradient)
    return network


def task(device: str) -> crowd.Task:
    return crowd.Task(
        model=lambda: network(device),
        data=dataset(separable(100, seed=DEVICES.index(device))),
        evaluation=dataset(separable(200, seed=9)),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        batch_size=10,
        target=0.9,
        epochs_max=40,
    )


def test_the_others_reach_the_target_without_it_and_all_are_told_whose_contributions_are_refused() -> None:
    cluster = SimulatedCluster(dict.fromkeys(DEVICES, 200), task, policy="fedavg")
    with capture_logs() as logs:
        run_virtually(cluster.train)
    samples = separable(500, seed=10)
    predicted = cluster.devices["ada"].node.model(samples.inputs).argmax(dim=1)
    assert int((predicted == samples.labels).sum()) > 0.9 * 500
    assert len({device.node.digest for device in cluster.devices.values()}) == 1
    told = [entry["sender"] for entry in logs if entry["event"] == "contribution_out_of_proportion"]
    assert sorted(told) == ["dia", "dia", "dia", "this device"]
