"""How long an owner of a slice waits for contributions, and for whom."""

from collections.abc import Mapping

import pytest
import torch

import crowd
from brokers.simulated.network import LinkSpec
from crowd.actors.trainer.deadlines import LATE_FACTOR, Deadlines
from crowd.units import SECOND_US, DeviceId
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually
from tests.policies.crowd_learning.test_no_class_is_lost import network, samples

ADA, BEN, CYD, DAN = (DeviceId(name) for name in ("ada", "ben", "cyd", "dan"))
PLANNED_US = 1_000
UNKNOWN_US = PLANNED_US + 2 * SECOND_US


def deadlines(arrivals_us: Mapping[DeviceId, int]) -> Deadlines:
    """Of a plan with four trainers, of whom these came at these times."""
    made = Deadlines()
    made.keep((ADA, BEN, CYD, DAN))
    for trainer, arrival_us in arrivals_us.items():
        made.observe(trainer, arrival_us)
    return made


def test_a_trainer_that_came_late_is_waited_for_in_the_next_round() -> None:
    assert deadlines({ADA: 800, BEN: 800, CYD: 800, DAN: 2_000}).deadline_us(PLANNED_US) >= 2_000


def test_a_trainer_that_came_far_too_late_holds_nobody_up_for_as_long() -> None:
    waits_us = deadlines({ADA: 800, BEN: 800, CYD: 800, DAN: 90_000}).deadline_us(PLANNED_US)
    assert waits_us <= LATE_FACTOR * 1_400


def test_a_trainer_of_whom_nothing_is_known_is_waited_for_ever_more_seldom() -> None:
    waits = deadlines({ADA: 800, BEN: 800, CYD: 800})
    patient = []
    for number in range(1, 18):
        if waits.deadline_us(PLANNED_US) == UNKNOWN_US:
            patient.append(number)
        waits.merged(number, (DAN,))
        waits.merged(number, (DAN,))  # another slice of the same round
    assert patient == [1, 2, 3, 5, 9, 17]


def test_a_new_plan_forgets_who_was_missing() -> None:
    waits = deadlines({ADA: 800, BEN: 800, CYD: 800})
    for number in range(1, 4):
        waits.merged(number, (DAN,))
    assert waits.deadline_us(PLANNED_US) < UNKNOWN_US
    waits.keep((ADA, BEN, CYD, DAN))
    assert waits.deadline_us(PLANNED_US) == UNKNOWN_US


@pytest.mark.parametrize("latency_s", [0.02, 0.06])
def test_rounds_that_last_longer_than_planned_on_one_device_do_not_go_on_without_its_class(latency_s: float) -> None:
    """The others have done their part long before what is far away has come, and no plan knows how far that is."""
    far = LinkSpec(uplink_bytes_s=1_250_000, downlink_bytes_s=1_250_000, latency_s=latency_s)
    speeds_kflops = {"giant": 2_000_000, "big": 1_500_000, "pi": 1_000_000, "shy": 20_000}

    def task(device: str) -> crowd.Task:
        labels = torch.full((300,), 2) if device == "shy" else torch.arange(300) % 2
        return crowd.Task(
            model=network,
            data=samples(labels, len(device)),
            evaluation=samples(torch.arange(300) % 3, 99),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
            batch_size=16,
            target=0.9,
            epochs_max=40,
        )

    cluster = SimulatedCluster(speeds_kflops, task, links={"shy": far}, share="never")
    run_virtually(cluster.train)
    giant = cluster.devices["giant"].node
    assert giant.results[giant.name].reached
