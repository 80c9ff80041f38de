"""What rounds show of their trainers, and how quotas follow it."""

from collections.abc import Mapping

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowd.planning.plan import Plan, TrainerRole
from crowd.planning.round_report import RATE_MAX, RoundReport, quotas
from crowd.units import SECOND_US, DeviceId

ADA, BEN, CEM = (DeviceId(name) for name in ("ada", "ben", "cem"))
PLAN = Plan(
    members=(),
    trainers=(
        TrainerRole(device=ADA, round_samples=600, batch_size=20, steps_us=SECOND_US),
        TrainerRole(device=BEN, round_samples=300, batch_size=20, steps_us=SECOND_US),
        TrainerRole(device=CEM, round_samples=100, batch_size=20, steps_us=SECOND_US),
    ),
)
AS_PLANNED = {ADA: 600_000, BEN: 300_000, CEM: 100_000}
"""Thousandths of samples a second."""


def quotas_with(**rates: int) -> dict[str, int]:
    told = {DeviceId(name): rate for name, rate in rates.items()}
    return {str(name): quota for name, quota in quotas(PLAN, RoundReport(rates=told)).items()}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param({}, {"ada": 600, "ben": 300, "cem": 100}, id="nothing known"),
        pytest.param(AS_PLANNED, {"ada": 600, "ben": 300, "cem": 100}, id="as planned"),
        pytest.param(
            {device: rate // 3 for device, rate in AS_PLANNED.items()},
            {"ada": 600, "ben": 300, "cem": 100},
            id="all a third as fast as was thought",
        ),
        pytest.param(
            AS_PLANNED | {BEN: 265_000}, {"ada": 600, "ben": 300, "cem": 100}, id="one slower by less than an eighth"
        ),
        pytest.param(AS_PLANNED | {BEN: 100_000}, {"ada": 750, "ben": 125, "cem": 125}, id="one slower"),
        pytest.param({ADA: 600_000, BEN: 100_000}, {"ada": 771, "ben": 128, "cem": 100}, id="of one nothing is known"),
        pytest.param(AS_PLANNED | {ADA: 1}, {"ada": 20, "ben": 600, "cem": 200}, id="twice as much, and a batch"),
        pytest.param(AS_PLANNED | {CEM: RATE_MAX}, {"ada": 20, "ben": 20, "cem": 200}, id="the same turned round"),
    ],
)
def test_who_is_slower_than_planned_trains_less_and_the_others_what_is_due(
    rates: Mapping[str, int], expected: dict[str, int]
) -> None:
    assert quotas_with(**rates) == expected


def test_quotas_stay_where_the_plan_says_no_time() -> None:
    fixed = attrs.evolve(PLAN, trainers=tuple(attrs.evolve(trainer, steps_us=0) for trainer in PLAN.trainers))
    assert quotas(fixed, RoundReport(rates={ADA: 1, BEN: 300_000, CEM: 100_000})) == {ADA: 600, BEN: 300, CEM: 100}
    assert RoundReport().after(fixed, {ADA: 600}, {ADA: SECOND_US}) == RoundReport()


def test_a_quota_that_is_less_than_a_batch_is_kept() -> None:
    small = attrs.evolve(PLAN.trainers[2], round_samples=12)
    plan = attrs.evolve(PLAN, trainers=(*PLAN.trainers[:2], small))
    assert quotas(plan, RoundReport(rates={ADA: 600_000, BEN: 300_000, CEM: 1}))[CEM] == 12


@given(st.lists(st.integers(1, RATE_MAX), min_size=3, max_size=3))
def test_every_trainer_trains_at_least_a_batch_and_at_most_twice_what_is_planned(rates: list[int]) -> None:
    told = quotas(PLAN, RoundReport(rates=dict(zip((ADA, BEN, CEM), rates, strict=True))))
    for trainer in PLAN.trainers:
        assert trainer.batch_size <= told[trainer.device] <= 2 * trainer.round_samples


def test_a_long_round_counts_for_nearly_all_and_a_short_one_for_little() -> None:
    known = RoundReport(rates={ADA: 600_000})
    long = known.after(PLAN, {ADA: 600}, {ADA: 5 * SECOND_US}).rates[ADA]
    short = known.after(PLAN, {ADA: 20}, {ADA: SECOND_US // 6}).rates[ADA]
    assert long == (600_000 + 10 * 120_000) // 11
    assert short == (3 * 600_000 + 120_000) // 4


def test_a_hang_is_forgotten_in_a_few_rounds() -> None:
    report = RoundReport(rates=AS_PLANNED).after(PLAN, {ADA: 600, BEN: 300}, {ADA: 60 * SECOND_US, BEN: SECOND_US})
    assert quotas(report=report, plan=PLAN)[ADA] < 20 + 600 // 10
    for _ in range(5):
        share = quotas(PLAN, report)[ADA]
        report = report.after(PLAN, {ADA: share}, {ADA: share * SECOND_US // 600})
    assert quotas(PLAN, report)[ADA] > 550


def test_what_is_not_told_stays_as_it_was_and_who_trains_no_more_is_forgotten() -> None:
    report = RoundReport(rates=AS_PLANNED)
    assert report.after(PLAN, {ADA: 0, BEN: 5}, {ADA: 7}) == report
    left = attrs.evolve(PLAN, trainers=PLAN.trainers[:2])
    assert report.after(left, {}, {}).rates.keys() == {ADA, BEN}


def test_a_rate_is_a_count_whatever_is_told() -> None:
    report = RoundReport().after(PLAN, {ADA: 10**18, BEN: 1}, {ADA: 1, BEN: 10**18})
    assert (report.rates[ADA], report.rates[BEN]) == (RATE_MAX, 1)
