"""Runs that follow each other on a living cluster: `python -m tests.marathon.runs`, exit code 0 if all went well.

Four devices over a broker. Before each run one of them is switched off or killed, the data of the others grow, and
somebody asks one of these for the run; when that is over the one that was away comes back. After each run all that are
up must have its model, the one that comes back too; a device that is never away begins every run once; and its memory
stays what it was after a tenth of the runs.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from crowd.cli.asked import ask
from crowd.model_card import CARD_FILE, ModelCard
from tests.marathon.growing import COUNT_FILE, DIRECTORY, FIRST
from tests.marathon.incidents import DEVICES
from tests.support.mosquitto import Mosquitto
from tests.support.processes import PATIENCE_S, Home, NodeProcess

STAYS, *LEAVE = DEVICES
KEPT = Path("build/runs")
"""Where logs stay until the next time."""
RUNS = 50
MORE = 4
"""Samples that a device gets before each run."""
GROWS_MAX = 1.05
"""Of the memory of the device that is never away."""
LOOK_S = 0.1


class Series:
    """So many runs, one after the other."""

    def __init__(self, home: Home, chance: random.Random, runs: int) -> None:
        self._home = home
        self._chance = chance
        self._runs = runs
        self._up: dict[str, NodeProcess] = {}

    def findings(self) -> Iterator[tuple[bool, str]]:
        """What is known after each run, and in the end."""
        for name in DEVICES:
            self._up[name] = self._home.start(name, once=False)
        yield self._one_model(1)
        before = self._memory()
        for run in range(2, self._runs + 1):
            away = self._chance.choice(LEAVE)
            self._switch_off(away)
            (self._home.directory / COUNT_FILE).write_text(str(FIRST + MORE * (run - 1)))
            asked = self._chance.choice(sorted(self._up))
            reply = ask(self._state_dir(asked), follows=run - 1, fresh=False)
            if reply is None or reply.run != run:
                yield False, f"run {run}: {asked} answers {reply}"
            holds, text = self._one_model(run)
            yield holds, f"{text}, {away} away"
            card, new = self._card(asked), FIRST + MORE * (run - 1)
            trained = 0 if card is None or card.data is None else card.data.get(asked, 0)
            if trained != new:
                yield False, f"run {run}: {asked} has {new} samples, of which {trained} are trained"
            self._up[away] = self._home.start(away, once=False)
            holds, text = self._one_model(run)
            yield holds, f"{text}, {away} back"
            if run == max(2, self._runs // 10):
                before = self._memory()
        now = self._memory()
        yield now <= GROWS_MAX * before, f"{STAYS}: {before / 1e6:.0f} MB after a tenth of the runs, {now / 1e6:.0f} MB"
        begun = Counter(re.findall(r"run_begins\b.*?\brun=(\d+)", "".join(self._up[STAYS].lines)))
        once = {str(run): 1 for run in range(2, self._runs + 1)}
        yield begun == once, f"{STAYS} has begun {len(begun)} runs, each {max(begun.values(), default=0)} times at most"

    def _one_model(self, run: int) -> tuple[bool, str]:
        """Wait until all devices that are up have the model of that run."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            cards = {name: self._card(name) for name in self._up}
            known = {(card.run, card.digest) for card in cards.values() if card is not None}
            if None not in cards.values() and {each for each, _ in known} == {run}:
                held = next(card.held for card in cards.values() if card is not None)
                return len(known) == 1, f"run {run}: {len(known)} model on {len(cards)} devices, of {held} samples"
            time.sleep(LOOK_S)
        told = {name: None if card is None else card.run for name, card in cards.items()}
        return False, f"run {run}: after {PATIENCE_S:.0f} s the devices have the models of runs {told}"

    def _card(self, name: str) -> ModelCard | None:
        path = self._state_dir(name) / CARD_FILE
        return ModelCard.from_bytes(path.read_bytes(), path) if path.exists() else None

    def _switch_off(self, name: str) -> None:
        process = self._up.pop(name)
        if self._chance.random() < 0.5:
            process.kill()
        else:
            process.process.send_signal(signal.SIGTERM)
            process.process.wait(timeout=PATIENCE_S)
            process.close()

    def _state_dir(self, name: str) -> Path:
        return self._home.directory / f"state-{name}"

    def _memory(self) -> int:
        return psutil.Process(self._up[STAYS].process.pid).memory_info().rss


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.marathon.runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of who is away, and who is asked")
    arguments = parser.parse_args()
    shutil.rmtree(KEPT, ignore_errors=True)
    directory = KEPT.resolve()
    directory.mkdir(parents=True)
    os.environ[DIRECTORY] = str(directory)  # for the devices, which inherit it
    failed = False
    with Mosquitto() as broker:
        home = Home(directory, broker, "tests.marathon.growing:task", names=DEVICES, members_min=len(DEVICES) - 1)
        try:
            for holds, text in Series(home, random.Random(arguments.seed), arguments.runs).findings():
                failed = failed or not holds
                print(f"{'ok  ' if holds else 'FAIL'} {text}", flush=True)
        finally:
            home.close()
            home.write_logs()
    print(f"the logs are in {KEPT}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
