"""Power cuts on all devices at once: `python -m tests.marathon.cuts`, exit code 0 if no more was lost than may be.

Three devices train over a broker, saving every two seconds. At random moments all of them are killed and started again,
in random order, until the run is twenty checkpoints long; then its target is in reach. By the logs: where the run goes
on is the most advanced state that any device had saved, and what had been trained since is at most what comes in one
interval, one write and a round at each end. `--without` deletes what was saved before each start: then this must fail.
"""

import argparse
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.marathon.incidents import DEVICES
from tests.marathon.task import DIRECTORY, FINISH
from tests.support.mosquitto import Mosquitto
from tests.support.processes import Home, NodeProcess

NAMES = DEVICES[:3]
KEPT = Path("build/cuts")
"""Where logs stay until the next time."""
INTERVAL_S = 2.0
CHECKPOINTS = 20
"""Length of a run."""
RUNS, CUTS = 5, 4
"""Runs, and power cuts in each."""
WRITE_SHARE_MAX = 0.01
"""Part of the time that writing takes at most: where a write is slow the interval is so much longer."""


@attrs.frozen
class Said:
    """A line of a device's log, with a round."""

    device: str
    at_s: float
    round: int


def said(processes: Sequence[NodeProcess], event: str) -> list[Said]:
    """All that these processes have said of that kind."""
    lines = []
    for process in processes:
        for line, heard_s in zip(process.lines, process.heard_s, strict=True):
            told = re.search(rf"\b{event}\b.*?\bround=(\d+)", line)
            if told is not None:
                lines.append(Said(process.name, heard_s, int(told[1])))
    return lines


def latest(lines: Sequence[Said]) -> Said:
    """The first one that names the greatest round; round 0 where there is none yet."""
    return min(lines, key=lambda line: (-line.round, line.at_s), default=Said("nobody", 0.0, 0))


def interval_s(lines: Sequence[str]) -> float:
    """The longest time to the next checkpoint that these lines of a log name: where writing takes long it is longer
    than asked for."""
    told = (re.search(r"checkpoint_saved\b.*?\bagain_s=([\d.]+)", line) for line in lines)
    return max((float(found[1]) for found in told if found is not None), default=INTERVAL_S)


class Run:
    """One run that is cut again and again."""

    def __init__(self, home: Home, chance: random.Random, *, keeps: bool) -> None:
        self._home = home
        self._chance = chance
        self._keeps = keeps
        self._lives: list[list[NodeProcess]] = []

    def findings(self) -> Iterator[tuple[bool, str]]:
        """What each cut has cost, and how the run has ended."""
        for number in range(CUTS + 1):
            if number:
                yield self._cut()
            self._start()
            for process in self._lives[-1]:
                process.wait_for(lambda line: "round_complete" in line)
            if number < CUTS:
                time.sleep(self._chance.uniform(0.5, 2 * INTERVAL_S * CHECKPOINTS / CUTS))
        while len(said(self._lives[-1], "checkpoint_saved")) < len(NAMES) * CHECKPOINTS // CUTS:
            time.sleep(0.5)
        (self._home.directory / FINISH).touch()
        runs = [process.finish() for process in self._lives[-1]]
        digests = {digest for run in runs for digest in dict(run["model_digests"]).values()}  # type: ignore[call-overload]
        yield all(run["reached"] for run in runs), "the target is reached on all devices"
        yield len(digests) == 1, f"{len(digests)} digest at the end"

        for number in range(1, CUTS + 1):
            best = latest([line for life in self._lives[:number] for line in said(life, "checkpoint_saved")]).round
            lines = [line for process in self._lives[number] for line in process.lines]
            starts = re.findall(r"plan_activated.*\bstart_round=(\d+)", "".join(lines))
            begun = min(map(int, starts), default=0)
            yield begun == best, f"life {number + 1} goes on from round {begun}, and round {best} was saved"

    def _start(self) -> None:
        if self._lives and not self._keeps:
            self._home.forget_checkpoints()
        life = []
        for name in self._chance.sample(NAMES, len(NAMES)):
            life.append(self._home.start(name))
            time.sleep(self._chance.uniform(0.0, 1.5))
        self._lives.append(life)

    def _cut(self) -> tuple[bool, str]:
        life = self._lives[-1]
        for process in life:
            process.process.kill()
        for process in life:
            process.close()
        saved, complete = said(life, "checkpoint_saved"), said(life, "round_complete")
        known = [*saved, *(line for each in self._lives[:-1] for line in said(each, "checkpoint_saved"))]
        last, best = latest(complete), latest(known)
        reached = next((line.at_s for line in complete if line.round >= best.round), last.at_s)
        round_s = (last.at_s - complete[0].at_s) / max(1, last.round - complete[0].round)
        interval = interval_s([line for process in life for line in process.lines])
        lost_s, may_s = last.at_s - reached, (1 + WRITE_SHARE_MAX) * interval + 2 * round_s
        text = (
            f"cut in round {last.round}, and {best.device} had saved round {best.round}: {lost_s:.2f} s of work are "
            f"lost, and {may_s:.2f} s may be"
        )
        return lost_s <= may_s, text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.marathon.cuts", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how many, of {CUTS} cuts each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and orders")
    parser.add_argument("--without", action="store_true", help="delete what was saved: must fail")
    arguments = parser.parse_args()
    shutil.rmtree(KEPT, ignore_errors=True)
    failed = False
    for number in range(arguments.runs):
        directory = KEPT.resolve() / f"run-{number}"
        directory.mkdir(parents=True)
        os.environ[DIRECTORY] = str(directory)  # for the devices, which inherit it
        chance = random.Random(f"{arguments.seed} {number}")
        with Mosquitto() as broker:
            home = Home(
                directory, broker, "tests.marathon.task:task", names=NAMES, train=f"checkpoint_s = {INTERVAL_S}\n"
            )
            run = Run(home, chance, keeps=not arguments.without)
            try:
                for holds, text in run.findings():
                    failed = failed or not holds
                    print(f"{'ok  ' if holds else 'FAIL'} run {number}: {text}", flush=True)
            finally:
                home.close()
                home.write_logs()
    print(f"the logs are in {KEPT}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
