"""The checkers checked: the protocol with one hole at a time, and the seed that shows each.

`python -m tests.simulation.mutants` looks for a seed that kills each mutant, and prints the table `killers.py`.

Layout: `MUTANTS`, `mutated` (the protocol with a hole), `kills` (whether a scenario shows it), `main` (the search).
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType

from crowd.actors.data_mover.data_mover import DataMover
from crowd.actors.planner import Planner
from crowd.actors.trainer.rounds import Rounds
from crowd.actors.trainer.trainer import Trainer
from crowd.agreement import agreement
from crowd.agreement.state import State
from crowd.agreement.view import View
from crowd.learning.feedback import Feedback
from crowd.learning.merge import SliceMerge
from crowd.learning.pool import EpochSampler
from crowd.node import Node
from crowd.planning.plan import Plan
from crowd.protocol.codec import Opener
from crowd.protocol.transfer.transfers import Transfers
from tests.simulation.play import play
from tests.simulation.scenario import Scenario, draw
from tests.support.mutation import rewritten

SEEDS_MAX = 400

Rewrite = tuple[ModuleType | type, str, tuple[tuple[str, str], ...]]
"""Whose function, its name, and what takes the place of what in it."""


def _in(owner: ModuleType | type, name: str, *changes: tuple[str, str]) -> Rewrite:
    return owner, name, changes


_NEVER_FROZEN = _in(Rounds, "freeze", ("self._frozen = True", "pass"))

MUTANTS: Mapping[str, tuple[Rewrite, ...]] = {
    # --- promises -----------------------------------------------------------------------------------------------------
    "an ack does not freeze the old generation": (
        _in(State, "frozen", ("self.promise.ack.generation > self.active.generation", "False")),
        _NEVER_FROZEN,
    ),
    "a round is completed after a promise": (
        _in(agreement, "_take_in", (" and not state.frozen", "")),
        _NEVER_FROZEN,
    ),
    "an owner merges after a promise": (_NEVER_FROZEN,),
    "a device acks twice in a generation": (
        _in(
            agreement,
            "_ack",
            (
                "joinable if joinable > state.generation_acked else state.generation_known + 1",
                "max(joinable, state.generation_acked, 1)",
            ),
        ),
    ),
    "a device joins a lower generation": (
        _in(
            agreement,
            "_ack",
            ("joinable <= state.generation_acked", "joinable == state.generation_acked"),
            ("joinable if joinable > state.generation_acked else", "joinable or"),
        ),
    ),
    "a plan is begun by a majority": (
        _in(
            agreement,
            "_activate",
            (
                "            return\n        acks[member.device] = ack",
                "            continue\n        acks[member.device] = ack",
            ),
            (
                "    start = max(",
                "    if 2 * len(acks) <= len(promise.plan.members):\n        return\n    start = max(",
            ),
        ),
    ),
    "of equal rounds the first heard of is the start": (
        _in(
            agreement,
            "_activate",
            (
                "max({ack.progress for ack in acks.values()})",
                "max((ack.progress for ack in acks.values()), key=lambda progress: progress.round)",
            ),
        ),
    ),
    "a generation starts at the least advanced round": (_in(agreement, "_activate", ("start = max(", "start = min(")),),
    # --- lives and views ----------------------------------------------------------------------------------------------
    "a device comes back under its old life": (
        _in(
            Node,
            "_make_supervisor",
            (
                "in a life of its own\n        life = Life(incarnation=1, boot=self._chance.randbytes(16))",
                "in its old life\n        life = Life(incarnation=1, boot=self.name.encode())",
            ),
        ),
    ),
    "a receiver ignores small changes of a profile": (
        _in(
            View,
            "merge",
            (
                "profile.version > known.version:",
                "profile.version > known.version and "
                "(profile.life != known.life or "
                "3 * abs(profile.speed_kflops - known.speed_kflops) > known.speed_kflops):",
            ),
        ),
    ),
    "nobody asks for the profiles that it lacks": (
        _in(agreement, "_ask", ("turn.emit(AskView(device=device))", "pass")),
    ),
    "a will is trusted": (
        _in(
            agreement,
            "_take_in",
            (
                "            turn.set(offline=known)",
                "            turn.set(offline=known)\n            if not online:\n"
                "                _bury(turn, (device,), 'it did not answer')",
            ),
        ),
    ),
    "a cut-off device buries the others": (_in(State, "echoing", ("return self.connected and", "return True or")),),
    "plans differ from device to device": (
        _in(
            Planner,
            "_work_out",
            (
                "        return Decision(plan=plan",
                "        plan = attrs.evolve(plan, seed=plan.seed + (self._me > 'd1'))\n"
                "        return Decision(plan=plan",
            ),
        ),
    ),
    "envelopes are let in again": (_in(Opener, "open", ("    self._remember(sealed)\n", "    pass\n")),),
    "a profile said to one who asked is not believed when relayed": (
        _in(
            Opener,
            "open_relayed",
            (
                "    self._verify(sealed)\n",
                "    self._verify(sealed)\n    if sealed.address.destination is not None:\n"
                "        raise Refused(Reason.WRONG_ADDRESS, 'relayed')\n",
            ),
        ),
    ),
    # --- rounds -------------------------------------------------------------------------------------------------------
    "merged slices of another generation are taken": (
        _in(
            Rounds,
            "merged",
            ("        or key.generation != active.generation\n", ""),
            ("        or key.plan_digest != active.plan_digest\n", ""),
        ),
        _in(Rounds, "is_ahead", (" or generation > self._active.generation", "")),
    ),
    "a state of another plan is taken for a later one": (
        _in(
            Rounds,
            "serves",
            ("(arrived.generation, arrived.plan_digest) == lineage", "True"),
        ),
    ),
    "contributions to another plan are merged": (
        _in(
            Rounds,
            "is_mine",
            ("        and key.generation == active.generation\n", ""),
            ("        and key.plan_digest == active.plan_digest\n", ""),
        ),
        _in(Rounds, "is_ahead", (" or generation > self._active.generation", "")),
    ),
    "a contribution that comes twice is merged twice": (
        _in(Transfers, "on_offer", ("    if key in self._answers:\n        return self._answer(key, to_all)\n", "")),
        _in(
            SliceMerge,
            "add",
            (" or sender in self._came", ""),
            (
                "samples=samples, delta=delta,",
                "samples=samples, delta=delta + self._came[sender].delta if sender in self._came else delta,",
            ),
        ),
    ),
    "an owner merges without waiting for half": (_in(SliceMerge, "enough", ("2 * sum(", "10**9 * sum(")),),
    "an owner merges a slice anew when more has come": (
        _in(Rounds, "_ready", (" or slot in self._merging", "")),
        _in(Rounds, "_taking", (" or (number, key.index) in self._merging", "")),
    ),
    "all contributions weigh the same": (_in(SliceMerge, "merged", ("contribution.samples / total", "1 / len(came)")),),
    "a merged slice is applied twice": (
        _in(Trainer, "_next_state", ("torch.cat(deltas)", "torch.cat([deltas[0] + deltas[0], *deltas[1:]])")),
    ),
    "each device decides for itself when the run is over": (
        _in(
            Trainer,
            "_next_state",
            (
                "_is_over(plan, streak, state.epochs_ppb + epochs_ppb)",
                "2 * self._metrics.samples_trained >= plan.epochs_max * plan.samples_total",
            ),
        ),
    ),
    "who falls far behind waits for ever": (
        _in(
            Rounds,
            "merged",
            (
                "    self._parts.setdefault(key.round",
                "    if key.round > self.in_hand + 4:\n        return ()\n    self._parts.setdefault(key.round",
            ),
        ),
        _in(DataMover, "_hear", ("any(_is_later(published, key) for published in self._published)", "False")),
    ),
    "who asks for a slice that nobody keeps is told to wait": (
        _in(DataMover, "_hear", ("any(_is_later(published, key) for published in self._published)", "False")),
    ),
    # --- residuals ----------------------------------------------------------------------------------------------------
    "what an owner did not take is lost": (_in(Feedback, "commit", ("left if named else carried", "left")),),
    "what an owner took is sent again": (_in(Feedback, "commit", ("left if named else carried", "carried")),),
    "a residual outlives the state that it belongs to": (
        _in(Trainer, "_take_state", ("    await self._compute.run(self._feedback.drop)\n", "    pass\n")),
    ),
    "an abandoned round leaves a trace": (_in(Feedback, "abandon", ("self._sent = {}", "pass")),),
    "a new plan loses the residual": (_in(Feedback, "abandon", ("self._sent = {}", "self.drop()")),),
    # --- samples ------------------------------------------------------------------------------------------------------
    "lent samples are trained at home too": (
        _in(Plan, "ranges", ("                    offsets[label] += count\n", "                    pass\n")),
    ),
    "a sample is dealt out again in the same epoch": (
        _in(EpochSampler, "take", ("self._dealt += len(taken)", "self._dealt += max(1, len(taken) - 1)")),
    ),
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """With that hole in the protocol."""
    with ExitStack() as stack:
        for owner, function, changes in MUTANTS[name]:
            stack.enter_context(rewritten(owner, function, *changes))
        yield


def kills(name: str, scenario: Scenario) -> str | None:
    """What the scenario finds wrong with that mutant; `None` if nothing."""
    with mutated(name):
        report = play(scenario)
    return report.findings[0].splitlines()[0] if report.findings else None


def search(name: str) -> tuple[str, int | None, str]:
    """The first seed that kills the mutant, and what it finds."""
    for seed in range(SEEDS_MAX):
        found = kills(name, draw(seed))
        if found is not None:
            return name, seed, found
    return name, None, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--only", help="mutants whose names contain this")
    only = parser.parse_args().only or ""
    wanted = [name for name in MUTANTS if only in name]
    survivors = []
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for name, seed, found in pool.imap_unordered(search, wanted):
            print(f'    "{name}": {seed},  # {found}', flush=True)
            if seed is None:
                survivors.append(name)
    print(f"{len(wanted) - len(survivors)} of {len(wanted)} killed", *survivors, sep="\n  not killed: ")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
