"""Plays scenarios, many at once: `python -m tests.simulation.soak --seeds 10000`, or one: `--seed 7 [--faults 0,3]`.

A seed that fails prints one line that replays it, with the smallest set of its faults that still fails.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

import attrs

from tests.simulation.play import Report, play
from tests.simulation.scenario import draw
from tests.simulation.shrink import smallest

FAULTS_MIN, ROUNDS_MIN = 3, 2


@attrs.frozen(kw_only=True)
class Verdict:
    """What became of one seed."""

    seed: int
    report: Report
    faults: tuple[int, ...]
    """The smallest set that fails, or all."""

    @property
    def failed(self) -> bool:
        return bool(self.report.findings)

    @property
    def replay(self) -> str:
        faults = ",".join(map(str, self.faults)) or "none"
        return f".venv/bin/python -m tests.simulation.soak --seed {self.seed} --faults {faults}"


def judge(seed: int, *, shrink: bool = True) -> Verdict:
    """Play a seed; if it fails, look for the smallest cause."""
    scenario = draw(seed)
    everything = tuple(range(len(scenario.faults)))
    report = play(scenario)
    if not report.findings or not shrink:
        return Verdict(seed=seed, report=report, faults=everything)
    found = {everything: report}

    def fails(places: tuple[int, ...]) -> bool:
        found[places] = play(scenario.only(places))
        return bool(found[places].findings)

    faults = smallest(everything, fails)
    return Verdict(seed=seed, report=found[faults], faults=faults)


def judge_all(seeds: range, workers: int) -> Iterator[Verdict]:
    """As they are done."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(judge, seeds, chunksize=4)


class Tally:
    """What a soak has come to."""

    def __init__(self) -> None:
        self.seeds = self.rounds = self.generations = self.messages = self.shown = 0
        self.simulated_s = self.device_s = 0.0
        self.faults: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        """What devices logged: how often they did what a rule asks for."""
        self.failed: list[Verdict] = []
        self.thin: list[int] = []
        """Seeds with too few faults or rounds to count."""

    def add(self, verdict: Verdict) -> None:
        report = verdict.report
        self.seeds += 1
        self.rounds += report.rounds
        self.generations += report.generations
        self.messages += report.messages
        self.shown += report.shown
        self.simulated_s += report.simulated_s
        self.device_s += report.device_s
        self.faults.update(report.faults)
        self.dropped.update(report.dropped)
        self.events.update(report.events)
        if verdict.failed:
            self.failed.append(verdict)
        elif sum(report.faults.values()) < FAULTS_MIN or report.rounds < ROUNDS_MIN:
            self.thin.append(verdict.seed)

    def lines(self, elapsed_s: float) -> list[str]:
        """For people."""
        return [
            f"{self.seeds:,} seeds in {elapsed_s / 60:.1f} min ({60 * self.seeds / elapsed_s:.0f} a minute), "
            f"{len(self.failed)} failed, {len(self.thin)} with under {FAULTS_MIN} faults or {ROUNDS_MIN} rounds",
            f"simulated: {self.simulated_s / 3600:,.1f} h, {self.device_s / 3600:,.1f} device-hours, "
            f"{self.generations:,} generations, {self.rounds:,} rounds, {self.messages:,} messages, "
            f"{self.shown:,} samples trained",
            f"faults: {_counts(self.faults)}",
            f"messages lost: {_counts(self.dropped)}",
            f"logged: {_counts(self.events)}",
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items())) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--faults", help="with these of its faults alone, as 0,3, or none")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed, arguments.faults)
    tally, began_s = Tally(), time.monotonic()
    shown_s = began_s
    for verdict in judge_all(range(arguments.first, arguments.first + arguments.seeds), arguments.workers):
        tally.add(verdict)
        if verdict.failed:
            print(f"FAILED {verdict.report.findings[0].splitlines()[0]}\n  {verdict.replay}", flush=True)
        if time.monotonic() - shown_s > 10:
            shown_s = time.monotonic()
            print(tally.lines(shown_s - began_s)[0], file=sys.stderr, flush=True)
    print("\n".join(tally.lines(time.monotonic() - began_s)))
    return 1 if tally.failed else 0


def replay(seed: int, faults: str | None) -> int:
    """One scenario, told at length."""
    scenario = draw(seed)
    if faults is not None:
        scenario = scenario.only(tuple(int(place) for place in faults.split(",")) if faults != "none" else ())
    for part in scenario.devices:
        print(part)
    print(attrs.evolve(scenario, devices=(), faults=()))
    for fault in scenario.faults:
        print(fault)
    report = play(scenario)
    print(attrs.evolve(report, findings=()))
    for finding in report.findings:
        print(f"FAILED {finding}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
