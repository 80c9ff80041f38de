"""When the next run is due by the clock."""

from datetime import UTC, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowd.actors.planner.timetable import DAY, LATER_MAX, Timetable
from crowd.config.node_file import NodeConfig
from crowd.errors import BadConfig

times = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda time: time.astimezone())
clocks = st.builds(time, st.integers(0, 23), st.integers(0, 59))
runs = st.integers(1, 1000)


def table(at: time | None = None, every: timedelta | None = None, *, cluster: str = "home") -> Timetable:
    return Timetable(cluster=cluster, at=at, every=every)


@given(ended=times, run=runs)
def test_without_a_time_no_run_is_due(ended: datetime, run: int) -> None:
    assert table().due(run, ended) is None


@given(ended=times, run=runs, at=clocks)
def test_a_time_of_day_is_the_next_one_after_the_end(ended: datetime, run: int, at: time) -> None:
    due = table(at).due(run, ended)
    assert due is not None
    on_time = datetime.combine(due.date(), at).astimezone()
    if due < on_time:  # past midnight
        on_time -= DAY
    assert timedelta(0) <= due - on_time < LATER_MAX
    assert timedelta(0) < on_time - ended <= DAY + timedelta(hours=1), "a day in autumn has 25 hours"


@given(ended=times, run=runs, minutes=st.integers(1, 100_000))
def test_a_period_is_counted_from_the_end(ended: datetime, run: int, minutes: int) -> None:
    every = timedelta(minutes=minutes)
    due = table(every=every).due(run, ended)
    assert due is not None
    assert every <= due - ended < every + min(every / 20, LATER_MAX)


@given(ended=times, run=runs, at=clocks, days=st.integers(1, 60))
def test_a_run_each_so_many_days_keeps_to_its_day(ended: datetime, run: int, at: time, days: int) -> None:
    started = datetime.combine(ended.date(), at).astimezone()
    if started > ended:
        started -= DAY
    due = table(at, days * DAY).due(run, ended)
    assert due is not None
    assert (due - LATER_MAX).date() in (started.date() + days * DAY, started.date() + (days - 1) * DAY)
    assert timedelta(hours=-1) <= due - started - days * DAY < LATER_MAX + timedelta(hours=1)


@given(ended=times, run=runs, at=clocks)
def test_all_devices_of_a_cluster_have_the_same_moment_and_clusters_have_others(
    ended: datetime, run: int, at: time
) -> None:
    assert table(at).due(run, ended) == table(at).due(run, ended)
    moments = {table(at, cluster=f"home-{number}").due(run, ended) for number in range(8)}
    assert len(moments) > 4


def test_the_time_of_day_is_that_of_the_place() -> None:
    ended = datetime(2026, 6, 1, 1, 0, tzinfo=timezone(timedelta(hours=9)))
    due = table(time(2)).due(1, ended)
    assert due is not None
    assert due.utcoffset() == datetime(2026, 6, 1).astimezone().utcoffset()
    assert due.astimezone(UTC) > ended


@pytest.mark.parametrize(
    ("at", "every", "wrong"),
    [
        *((at, None, "at") for at in ("2:00", "24:00", "")),
        *((None, every, "every") for every in ("7", "0d", "7 d", "-1h")),
        ("02:00", "12h", "every"),
    ],
)
def test_a_time_that_cannot_be_is_refused(at: str | None, every: str | None, wrong: str) -> None:
    with pytest.raises(BadConfig, match=f"{wrong}: expected"):
        NodeConfig(name="ada", cluster="home", broker="memory://test", at=at, every=every)


def test_times_are_read() -> None:
    config = NodeConfig(name="ada", cluster="home", broker="memory://test", at="02:30", every="7d")
    assert (config.at_time, config.period) == (time(2, 30), 7 * DAY)
