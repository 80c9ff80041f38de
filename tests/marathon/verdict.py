"""Whether a marathon went well: `findings`, a line each, by what the devices wrote into their logs and by their
memory."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import attrs

from tests.marathon.incidents import DEVICES, NAMED_BY
from tests.marathon.play import Happened, Played, Ran

SETTLED_S = 60.0
"""After so much time in rounds the memory of a process counts, in a marathon that is not stretched."""
GROWTH_MAX = 0.1
NAMED_WITHIN_S = 60.0
"""How long after its end an incident may be named for the first time."""
AGAIN_S = 59.0
"""The logs have whole seconds: a minute between two lines may be a second less in them."""
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \[(\w+) *\] (\w+) *(.*)")
_SUBJECT = re.compile(r"\b(?:departed|suspended|absent|by|left_out|in_the_name_of|of)=(\[[^]]*]|\S+)")


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that must be true, and whether it is."""

    holds: bool
    text: str


@attrs.frozen(kw_only=True)
class Said:
    """A line of a log."""

    at_s: float
    level: str
    event: str
    rest: str
    """What it says of the event, as `key=value key=value`."""

    @property
    def subject(self) -> str:
        """Whom it is about; empty if it names nobody."""
        found = _SUBJECT.search(self.rest)
        return found[1] if found else ""

    def figure(self, key: str) -> str:
        """The value of that key, one word."""
        found = re.search(rf"\b{key}=(\S+)", self.rest)
        assert found is not None, f"{self.event} has no {key}: {self.rest}"
        return found[1]


def read(lines: Iterable[str]) -> list[Said]:
    """The lines of a log that are of events."""
    found = (_LINE.match(line) for line in lines)
    return [
        Said(at_s=datetime.fromisoformat(line[1]).timestamp(), level=line[2], event=line[3], rest=line[4].strip())
        for line in found
        if line is not None
    ]


def findings(played: Played) -> Iterator[Finding]:
    """All that must be true of a marathon, and that is told of it."""
    logs = [(ran, read(ran.lines)) for ran in played.ran]
    yield of_target(logs)
    yield of_rounds(logs)
    yield of_final_state(logs)
    yield from (of_memory(ran, log, SETTLED_S * played.factor) for ran, log in logs if not ran.is_killed)
    for happened in played.happened:
        yield of_incident(happened, [said for _, log in logs for said in log])
    yield of_repetition([log for _, log in logs])
    yield of_tracebacks([ran.lines for ran in played.ran])
    yield of_evictions([said for _, log in logs for said in log])


Logs = Sequence[tuple[Ran, Sequence[Said]]]


def _finished(logs: Logs) -> dict[str, Said]:
    """The last word of each device's last process on the end of its run."""
    last: dict[str, Said] = {}
    for ran, log in logs:
        last.pop(ran.name, None)
        for said in log:
            if said.event == "run_finished":
                last[ran.name] = said
    return last


def of_target(logs: Logs) -> Finding:
    reached = {name: said for name, said in _finished(logs).items() if said.figure("reached") == "True"}
    missing = sorted(set(DEVICES) - reached.keys())
    ends = ", ".join(f"{name} in round {said.figure('round')}" for name, said in sorted(reached.items()))
    return Finding(holds=not missing, text=f"target reached: {ends or 'nowhere'}" + _but(missing, "not reached by"))


def of_rounds(logs: Logs) -> Finding:
    """Under one plan. Two parts of a cluster that do not hear each other may both train the rounds of a number; then
    they go on from one of the two. A round that a device completed last before it was killed, or before it took
    another's state, may have been completed by nobody else: it counts only if it was."""
    digests: dict[tuple[str, int], set[str]] = defaultdict(set)
    for ran, log in logs:
        plan, steps = "", []
        for said in log:
            if said.event == "plan_activated":
                plan = f"{said.figure('generation')} {said.figure('plan')}"
            elif said.event in ("round_complete", "state_fetched"):
                steps.append((plan, said))
        after: list[Said | None] = [*(said for _, said in steps[1:]), None]
        for (under, said), then in zip(steps, after, strict=True):
            is_last = ran.is_killed if then is None else then.event == "state_fetched"
            if said.event == "round_complete" and not is_last:
                digests[under, int(said.figure("round"))].add(said.figure("digest"))
    forked = sorted({number for (_, number), known in digests.items() if len(known) > 1})
    return Finding(
        holds=bool(digests) and not forked,
        text=f"{len({number for _, number in digests}):,} rounds with one digest each"
        + _but(forked, "several digests in the rounds"),
    )


def of_final_state(logs: Logs) -> Finding:
    digests = {said.figure("digest") for said in _finished(logs).values()}
    return Finding(holds=len(digests) == 1, text=f"final digests: {', '.join(sorted(digests)) or 'none'}")


def of_memory(ran: Ran, log: Sequence[Said], settled_s: float) -> Finding:
    """Of one process, which runs still at the end."""
    first_round_s = min((said.at_s for said in log if said.event == "round_complete"), default=math.inf)
    settled = [rss for at_s, rss in ran.rss_bytes if at_s >= first_round_s + settled_s]
    if not settled:
        return Finding(holds=False, text=f"{ran.name}: it was not in rounds for {settled_s:.0f} s")
    first, last = settled[0], settled[-1]
    return Finding(
        holds=last <= first * (1 + GROWTH_MAX),
        text=f"{ran.name}: {first / 1e6:.0f} MB after {settled_s:.0f} s of rounds, {last / 1e6:.0f} MB at the end",
    )


def of_incident(happened: Happened, said: Iterable[Said]) -> Finding:
    """Whether somebody named it in time."""
    incident = happened.incident
    named = [
        line
        for line in said
        if line.event in NAMED_BY[incident.kind]
        and incident.device in line.rest
        and int(happened.began_s) <= line.at_s <= happened.ended_s + NAMED_WITHIN_S
    ]
    after_s = max(0.0, min((line.at_s for line in named), default=0.0) - happened.began_s)
    events = ", ".join(sorted({line.event for line in named}))
    how_much = f" ({happened.how_much})" if happened.how_much else ""
    return Finding(
        holds=bool(named),
        text=f"{incident.name}{how_much}: "
        + (f"named after {after_s:.0f} s: {events}" if named else "nobody named it"),
    )


def of_repetition(logs: Iterable[Sequence[Said]]) -> Finding:
    """Whether no process warned twice in a minute of the same of the same device."""
    warnings, soon = 0, []
    for log in logs:
        last: dict[tuple[str, str], Said] = {}
        for said in log:
            if said.level not in ("warning", "error"):
                continue
            warnings += 1
            before = last.get((said.event, said.subject))
            if before is not None and said.at_s - before.at_s < AGAIN_S:
                soon.append(f"{said.event} {said.subject} after {said.at_s - before.at_s:.0f} s")
            last[said.event, said.subject] = said
    return Finding(holds=not soon, text=f"{warnings} warnings" + _but(soon, f"{len(soon)} again within a minute:"))


def of_tracebacks(logs: Iterable[Sequence[str]]) -> Finding:
    blamed = [log[place : place + 40] for log in logs for place, line in enumerate(log) if "Traceback" in line]
    return Finding(
        holds=not blamed,
        text=f"{len(blamed)} tracebacks" + "".join("\n    " + "    ".join(lines) for lines in blamed[:1]),
    )


def of_evictions(said: Iterable[Said]) -> Finding:
    """Told, not judged."""
    evicted: dict[str, int] = defaultdict(int)
    for line in said:
        if line.event == "device_evicted":
            evicted[line.rest] += 1
    told = "".join(f"\n    {count} x {rest}" for rest, count in sorted(evicted.items()))
    return Finding(holds=True, text=f"evictions:{told or ' none'}")


def _but(failed: Sequence[object], what: str) -> str:
    """What goes wrong with these, a few of them named."""
    return f"; {what} " + ", ".join(map(str, failed[:10])) if failed else ""
