"""Who gossips with whom, and how fast opinions then come together."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowd.learning.task import Task
from crowd.learning.work import LocalTrainer
from crowd.planning.plan import PPM, Mixing
from crowd.units import DeviceId
from policies.baselines.topology import metropolis, random_regular, ring
from tests.learning.nets import layout_of, make_task


def names(count: int) -> list[DeviceId]:
    return [DeviceId(f"d{index:02}") for index in range(count)]


def matrix(devices: list[DeviceId], mixing: Mixing) -> np.ndarray:
    """W (devices, devices) as the plan states it."""
    weights = np.zeros((len(devices), len(devices)))
    for row, device in enumerate(devices):
        for other, weight in mixing.neighbours(device).items():
            weights[row, devices.index(other)] = weight / PPM
        weights[row, row] = 1.0 - weights[row].sum()
    return weights


@given(count=st.integers(1, 20), seed=st.integers(0, 100))
def test_weights_are_symmetric_stochastic_and_connect_all(count: int, seed: int) -> None:
    devices = names(count)
    for edges in (ring(devices), random_regular(devices, seed)):
        weights = matrix(devices, Mixing(every_steps=1, exchanges=1, links=metropolis(edges)))
        assert np.array_equal(weights, weights.T)
        assert (weights >= 0).all()
        assert weights.sum(axis=1) == pytest.approx(np.ones(count))
        assert (np.linalg.matrix_power(weights + np.eye(count), count) > 0).all()


def test_in_a_ring_all_have_two_neighbours_and_in_the_random_graph_at_most_four() -> None:
    devices = names(12)
    for edges, most in ((ring(devices), 2), (random_regular(devices, 0), 4)):
        degrees = [sum(device in edge for edge in edges) for device in devices]
        assert max(degrees) == most
        assert min(degrees) >= 2
    assert random_regular(devices, 0) != random_regular(devices, 1)
    assert metropolis(ring(names(2)))[0].weight_ppm == PPM // 2


def trainers(task: Task, count: int) -> list[LocalTrainer]:
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = task.model()
        made.append(LocalTrainer(task, model, layout_of(model)))
    return made


@pytest.mark.parametrize("graph", ["ring", "random"])
def test_disagreement_falls_as_the_spectral_gap_predicts(graph: str) -> None:
    """Lian et al. 2017, lemma 5: with every exchange by the factor of W's second largest eigenvalue."""
    devices = names(8)
    edges = ring(devices) if graph == "ring" else random_regular(devices, 0)
    mixing = Mixing(every_steps=1, exchanges=1, links=metropolis(edges))
    gap = sorted(abs(np.linalg.eigvalsh(matrix(devices, mixing))))[-2]
    workers = trainers(make_task(model=lambda: torch.nn.Linear(200, 20)), len(devices))
    for worker in workers:
        torch.nn.init.normal_(worker.model.get_parameter("weight"))
    errors = []
    for _ in range(24):
        vectors = {device: worker.parameters() for device, worker in zip(devices, workers, strict=True)}
        spread = torch.stack(list(vectors.values()))
        errors.append(float((spread - spread.mean(0)).norm()))
        for device, worker in zip(devices, workers, strict=True):
            worker.mix([(vectors[other], weight / PPM) for other, weight in mixing.neighbours(device).items()])
    assert all(after <= gap * before * 1.001 for before, after in itertools.pairwise(errors))
    assert (errors[-1] / errors[-5]) ** 0.25 == pytest.approx(gap, rel=0.02)
