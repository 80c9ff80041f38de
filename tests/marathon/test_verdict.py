"""What a marathon is judged by, on logs that were written for it."""

from datetime import datetime

import attrs
import pytest

from tests.marathon.incidents import DEVICES, Incident, Kind
from tests.marathon.play import Happened, Played, Ran
from tests.marathon.verdict import Finding, findings

BEGAN_S = datetime(2026, 1, 1).timestamp()  # logs are in local time
MEGABYTE = 1_000_000
HANG = Incident(at_s=10, kind=Kind.HANG, device="cellar", lasts_s=20)
HAPPENED = Happened(incident=HANG, began_s=BEGAN_S + 10, ended_s=BEGAN_S + 30)


def line(second: int, level: str, event: str, rest: str) -> str:
    """One of a log, that many seconds after its beginning."""
    at = datetime.fromtimestamp(BEGAN_S + second)
    return f"{at:%Y-%m-%d %H:%M:%S} [{level:<9}] {event:<30} {rest}\n"


def log_of(name: str) -> list[str]:
    """What a device writes into its log in a good marathon of 200 s."""
    return [
        line(0, "info", "node_goes_on", f"doing='{name} joins home'"),
        line(1, "info", "round_complete", "digest=aa11 loss=2.3 round=1 trainers=['attic', 'cellar'] value=0.1"),
        line(12, "warning", "trainer_absent", "absent=cellar round=2"),
        line(13, "info", "round_complete", "digest=bb22 loss=2.3 round=2 trainers=['attic'] value=0.1"),
        line(90, "warning", "trainer_absent", "absent=cellar round=9"),
        line(200, "info", "run_finished", "digest=cc33 reached=True round=9"),
    ]


@attrs.frozen
class Case:
    """A marathon of which one thing is changed."""

    ran: list[Ran] = attrs.field(factory=lambda: [ran_of(name, log_of(name)) for name in DEVICES])

    def failed(self) -> list[str]:
        """The texts of all findings that do not hold."""
        return [finding.text for finding in self.judge() if not finding.holds]

    def judge(self) -> list[Finding]:
        return list(findings(Played(ran=self.ran, happened=[HAPPENED], factor=1.0)))


def ran_of(name: str, lines: list[str], *, grown: int = 0) -> Ran:
    rss = [(BEGAN_S + 62, 400 * MEGABYTE), (BEGAN_S + 200, (400 + grown) * MEGABYTE)]
    return Ran(name=name, lines=lines, rss_bytes=[(BEGAN_S + 2, 200 * MEGABYTE), *rss])


def test_a_good_marathon_has_no_fault() -> None:
    assert Case().failed() == []
    assert [finding.text for finding in Case().judge()][:3] == [
        "target reached: attic in round 9, cellar in round 9, kitchen in round 9, porch in round 9",
        "2 rounds with one digest each",
        "final digests: cc33",
    ]


def test_a_device_that_starts_anew_must_finish_anew() -> None:
    case = Case()
    case.ran[0].is_killed = True
    case.ran.append(ran_of("attic", log_of("attic")[:-1]))
    assert any("not reached by attic" in text for text in case.failed())


@pytest.mark.parametrize(
    ("at", "lines", "fault"),
    [
        (5, [line(200, "info", "run_finished", "digest=cc33 reached=False round=9")], "not reached by kitchen"),
        (5, [line(200, "info", "run_finished", "digest=dd44 reached=True round=9")], "final digests: cc33, dd44"),
        (3, [line(13, "info", "round_complete", "digest=ee55 loss=2.3 round=2")], "several digests in the rounds 2"),
        (4, [line(50, "warning", "trainer_absent", "absent=cellar round=5")], "trainer_absent cellar after 38 s"),
        (5, ["Traceback (most recent call last):\n", "ValueError\n"], "1 tracebacks"),
    ],
)
def test_what_goes_wrong_on_one_device_is_found(at: int, lines: list[str], fault: str) -> None:
    case = Case()
    log = case.ran[2].lines
    log[at : at + 1] = [*lines, log[at]] if fault == "1 tracebacks" else lines
    assert any(fault in text for text in case.failed()), case.failed()


def test_the_last_round_of_a_killed_process_counts_only_if_others_have_completed_it_too() -> None:
    case = Case()
    fork = line(14, "info", "round_complete", "digest=ff66 loss=2.3 round=3")
    other = line(20, "info", "round_complete", "digest=ab77 loss=2.3 round=3")
    case.ran[1].lines.insert(-1, other)
    case.ran.insert(0, ran_of("attic", [*log_of("attic")[:4], fork]))
    assert case.failed() == ["3 rounds with one digest each; several digests in the rounds 3"]
    case.ran[0].is_killed = True
    assert case.failed() == []


def test_so_does_the_last_round_before_another_state_is_taken() -> None:
    case = Case()
    fork = line(14, "info", "round_complete", "digest=ff66 loss=2.3 round=3")
    case.ran[1].lines.insert(-1, line(20, "info", "round_complete", "digest=ab77 loss=2.3 round=3"))
    case.ran[0].lines.insert(-1, fork)
    assert case.failed() == ["3 rounds with one digest each; several digests in the rounds 3"]
    case.ran[0].lines.insert(-1, line(21, "info", "state_fetched", "digest=cd88 holder=cellar round=9"))
    assert case.failed() == []


def test_two_parts_of_a_cluster_may_train_rounds_of_the_same_numbers_under_plans_of_their_own() -> None:
    case = Case()
    case.ran[1].lines.insert(-1, line(20, "info", "round_complete", "digest=ab77 loss=2.3 round=3"))
    case.ran[1].lines.insert(-1, line(21, "info", "round_complete", "digest=ab78 loss=2.3 round=4"))
    apart = [
        line(14, "info", "plan_activated", "generation=2 members=['attic'] plan=77aa start_round=2 why='alone'"),
        line(15, "info", "round_complete", "digest=ff66 loss=2.3 round=3"),
        line(16, "info", "round_complete", "digest=ff67 loss=2.3 round=4"),
    ]
    case.ran[0].lines[-1:-1] = apart[1:]
    assert case.failed() == ["4 rounds with one digest each; several digests in the rounds 3, 4"]
    case.ran[0].lines[-3:-3] = apart[:1]
    assert case.failed() == []


def test_memory_that_grows_by_more_than_a_tenth_is_a_fault() -> None:
    case = Case()
    case.ran[3] = ran_of("porch", log_of("porch"), grown=41)
    assert case.failed() == ["porch: 400 MB after 60 s of rounds, 441 MB at the end"]
    case.ran[3] = ran_of("porch", log_of("porch"), grown=40)
    assert case.failed() == []


def test_who_holds_up_a_round_alone_and_with_another_are_two_things_to_say() -> None:
    case = Case()
    for second, blamed in ((40, "['attic', 'porch']"), (45, "['attic', 'cellar']"), (50, "['attic', 'porch']")):
        case.ran[2].lines.insert(-2, line(second, "warning", "round_held_up", f"by={blamed} round={second}"))
    assert case.failed() == ["11 warnings; 1 again within a minute: round_held_up ['attic', 'porch'] after 10 s"]


def test_an_incident_that_nobody_names_in_time_is_a_fault() -> None:
    case = Case()
    for ran in case.ran:
        del ran.lines[2]
        ran.lines[3] = line(91, "warning", "trainer_absent", "absent=cellar round=9")
    assert case.failed() == ["cellar hangs: nobody named it"]
