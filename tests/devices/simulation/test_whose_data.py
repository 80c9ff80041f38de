"""A device that cannot begin is named: in a simulation many do, and all say it in one place."""

import pytest
import torch

import crowd
from crowd.errors import BadConfig
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually
from tests.learning.nets import dataset, make_task, separable


def task(device: str) -> crowd.Task:
    samples = separable(40)
    if device == "ben":
        samples.inputs[5, 0] = torch.nan
    return make_task(data=dataset(samples))


def test_it_is_said_whose_data_cannot_be_used() -> None:
    cluster = SimulatedCluster({"ada": 200, "ben": 200}, task)
    with pytest.raises(BadConfig, match=r"^device 'ben': input of data\[5\] is not finite"):
        run_virtually(cluster.devices["ben"].live)
