"""The table of a marathon: what is done to the devices has room for itself."""

import itertools

from tests.marathon.incidents import DEVICES, FINISH_S, MINUTES, NAMED_BY, TABLE, Kind


def test_one_incident_is_over_before_the_next_begins_and_all_before_the_run_may_end() -> None:
    assert all(before.end_s < after.at_s for before, after in itertools.pairwise(TABLE))
    assert TABLE[-1].end_s < FINISH_S < 60 * MINUTES


def test_all_kinds_of_incidents_happen_to_devices_that_there_are_or_to_all() -> None:
    assert {incident.kind for incident in TABLE} == set(Kind) == NAMED_BY.keys()
    for incident in TABLE:
        assert incident.device in (DEVICES if incident.kind is Kind.KILL else ("",))


def test_a_marathon_of_another_length_is_the_same_at_another_speed() -> None:
    halves = [incident.stretched(0.5) for incident in TABLE]
    assert [incident.end_s for incident in halves] == [incident.end_s / 2 for incident in TABLE]
    assert [incident.name for incident in halves] == [incident.name for incident in TABLE]
