"""Holes that cost nobody a sample, only time: earlier drafts had them, and put back they are caught by the
tests that were written for them. Holes that break a promise are in `tests.simulation.mutants`.
"""

import pytest

from crowd.actors.trainer.deadlines import Deadlines
from crowd.agreement import failure_detector
from crowd.agreement.state import State
from tests.agreement import test_agreement
from tests.learning import test_merge
from tests.support.mutation import replace, rewritten


def test_waiting_for_ever_for_a_member_that_never_acks_is_caught() -> None:
    hole = rewritten(failure_detector, "evict_overdue", replace("predicates.missing_acks(state)", "()"))
    with hole, pytest.raises(AssertionError):
        test_agreement.test_a_living_device_that_never_acks_is_evicted_and_returns()


def test_a_cut_off_device_that_evicts_everyone_is_caught() -> None:
    round_trip = "self.own.connected and last_us is not None and self.now_us - last_us < self.silence_us"
    hole = rewritten(State, "has_round_trip", replace(round_trip, "True"))
    with hole, pytest.raises(AssertionError):
        test_agreement.test_a_cut_off_device_evicts_nobody()


def test_a_deadline_that_shuts_out_a_slightly_slower_device_for_ever_is_caught() -> None:
    # with regular arrivals the median absolute deviation is nothing, and the median alone would be the deadline
    hole = rewritten(Deadlines, "deadline_us", replace("max(mad_us, median_us // 4)", "mad_us"))
    with hole, pytest.raises((AssertionError, ExceptionGroup)):
        test_merge.test_a_regular_device_within_half_of_the_median_is_never_shut_out_for_ever()
