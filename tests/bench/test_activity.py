"""Who was busy when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowd.bench.activity import PARTS, activity, percents
from crowd.experiment.balance import ComputeTrace
from crowd.experiment.metering import LinkBusy, Span


@given(st.lists(st.integers(-500, 1500), unique=True, max_size=40), st.floats(0.5, 900.0))
def test_no_busy_time_within_the_run_is_lost(moments: list[int], end_s: float) -> None:
    ordered = sorted(moments)
    spans = list(zip(ordered[::2], ordered[1::2], strict=False))
    within_s = sum(max(0.0, min(ended_s, end_s) - max(began_s, 0.0)) for began_s, ended_s in spans)
    said = percents(spans, end_s=end_s)
    assert len(said) == PARTS
    assert all(0 <= part <= 100 for part in said)
    assert sum(said) / 100 / PARTS * end_s == pytest.approx(within_s, abs=0.005 * end_s)


def test_each_lane_shows_what_it_is_of() -> None:
    trace = ComputeTrace(
        spans=(Span(began_s=0.0, ended_s=1.0, flops=1), Span(began_s=1.0, ended_s=2.0, flops=0)),
        speeds=((-5.0, 100), (6.0, 0), (8.0, 100)),
    )
    said = activity(trace, LinkBusy(up=((2.0, 3.0),), down=((3.0, 4.0), (-3.0, -2.0))), end_s=8.0)
    eighth = PARTS // 8
    whole, nothing = [100] * eighth, [0] * eighth
    assert said.compute == whole * 2 + nothing * 6
    assert said.up == nothing * 2 + whole + nothing * 5
    assert said.down == nothing * 3 + whole + nothing * 4
    assert said.off == nothing * 6 + whole * 2


def test_a_run_that_took_no_time_shows_nothing() -> None:
    assert percents([(0.0, 1.0)], end_s=0.0) == []
