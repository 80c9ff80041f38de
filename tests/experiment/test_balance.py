"""What share of its processors' time a cluster puts to use."""

import pytest

from crowd.experiment.balance import ComputeTrace, balance_efficiency
from crowd.experiment.metering import Span

KFLOP = 1000


def span(began_s: float, ended_s: float, kflops: int) -> Span:
    return Span(began_s=began_s, ended_s=ended_s, flops=kflops * KFLOP)


def trace(speed_kflops: int, *spans: Span) -> ComputeTrace:
    return ComputeTrace(spans=spans, speeds=((0.0, speed_kflops),))


def test_devices_that_compute_all_the_time_are_in_perfect_balance() -> None:
    both = [trace(100, span(0, 4, 400)), trace(25, span(0, 4, 100))]
    assert balance_efficiency(both, from_s=0, until_s=4) == pytest.approx(1)


def test_a_device_that_waits_for_the_slower_one_is_idle_for_its_whole_speed() -> None:
    both = [trace(100, span(0, 1, 100)), trace(25, span(0, 4, 100))]
    assert balance_efficiency(both, from_s=0, until_s=4) == pytest.approx(200 / (125 * 4))


def test_time_in_which_nobody_computes_is_not_a_matter_of_balance() -> None:
    alone = [trace(100, span(0, 1, 100), span(9, 10, 100))]
    assert balance_efficiency(alone, from_s=0, until_s=20) == pytest.approx(1)


def test_who_does_nothing_is_no_participant() -> None:
    assert balance_efficiency([trace(100, span(0, 1, 100)), trace(900)], from_s=0, until_s=1) == pytest.approx(1)
    assert balance_efficiency([trace(100)], from_s=0, until_s=1) is None


def test_only_what_was_done_between_the_two_moments_counts() -> None:
    both = [trace(100, span(0, 4, 400)), trace(100, span(0, 2, 200))]
    assert balance_efficiency(both, from_s=1, until_s=3) == pytest.approx(300 / 400)


def test_work_that_was_cut_short_took_time_and_came_to_nothing() -> None:
    assert balance_efficiency([trace(100, span(0, 1, 100), span(1, 2, 0))], from_s=0, until_s=2) == pytest.approx(0.5)


def test_a_device_owes_nothing_while_it_is_switched_off_and_less_while_it_is_slow() -> None:
    throttled = ComputeTrace(spans=(span(0, 1, 100), span(1, 2, 50)), speeds=((0.0, 100), (1.0, 50)))
    gone = ComputeTrace(spans=(span(0, 1, 100),), speeds=((0.0, 100), (1.0, 0)))
    assert balance_efficiency([throttled, gone], from_s=0, until_s=2) == pytest.approx(1)
