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

from crowd.actors.data_mover.shipments import Shipments
from crowd.actors.lives import Lives
from crowd.actors.planner.planner import Planner
from crowd.actors.planner.runs import Runs
from crowd.actors.trainer.checkpoints import Checkpoints
from crowd.actors.trainer.completion import Completion
from crowd.actors.trainer.course import Course
from crowd.actors.trainer.learner import Learner
from crowd.actors.trainer.own_slices import OwnSlice
from crowd.actors.trainer.rounds import Rounds
from crowd.actors.trainer.training import Training
from crowd.agreement import acks, failure_detector, step
from crowd.agreement.state import State
from crowd.agreement.turn import Turn
from crowd.agreement.view import View
from crowd.learning import replica
from crowd.learning.feedback import Feedback
from crowd.learning.merge import SliceMerge
from crowd.learning.own_data import DataSet, OwnData
from crowd.learning.pool import EpochSampler
from crowd.planning.plan import Plan
from crowd.protocol.codec import Opener
from crowd.protocol.transfer.transfers import Transfers
from tests.simulation.play import play
from tests.simulation.scenario import Scenario, draw
from tests.support.mutation import Change, delete, insert, replace, rewritten

SEEDS_MAX = 400

Rewrite = tuple[ModuleType | type, str, tuple[Change, ...]]
"""Whose function, its name, and what becomes of what in it."""


def _in(owner: ModuleType | type, name: str, *changes: Change) -> Rewrite:
    return owner, name, changes


_OF_ANOTHER_PLAN = "not active.covers(key)"
_NEVER_FROZEN = _in(Course, "freeze", delete("self._frozen = True"))
_NEVER_AHEAD = _in(Course, "is_ahead", replace("generation > self._active.generation", "False"))
_NOTHING_IS_OVER = _in(
    Shipments, "is_over", replace("any(_is_later(published, key) for published in self._published)", "False")
)

MUTANTS: Mapping[str, tuple[Rewrite, ...]] = {
    # --- acks ---------------------------------------------------------------------------------------------------------
    "an ack does not freeze the old generation": (
        _in(State, "frozen", replace("own_ack.ack.generation > active.generation", "False")),
        _NEVER_FROZEN,
    ),
    "a round is completed after an ack": (
        _in(step, "_accept_round", replace("turn.state.frozen", "False")),
        _NEVER_FROZEN,
    ),
    "an owner merges after an ack": (_NEVER_FROZEN,),
    "a device acks twice in a generation": (
        _in(
            acks,
            "give",
            replace(
                "joinable if joinable > acked else state.acks.generation_known + 1",
                "max(joinable, acked, 1)",
            ),
        ),
    ),
    "a device joins a lower generation": (
        _in(
            acks,
            "give",
            replace("joinable <= acked", "joinable == acked"),
            replace(
                "joinable if joinable > acked else state.acks.generation_known + 1",
                "joinable or state.acks.generation_known + 1",
            ),
        ),
    ),
    "a plan is begun by a majority": (
        _in(
            acks,
            "activate",
            replace(
                "if ack is None or not predicates.matches(ack, own_ack.ack, member.life): return",
                "if ack is None or not predicates.matches(ack, own_ack.ack, member.life): continue",
            ),
            insert(
                "if 2 * len(acks) <= len(own_ack.plan.members): return",
                before="start = max({ack.progress for ack in acks.values()})",
            ),
        ),
    ),
    "of equal rounds the first heard of is the start": (
        _in(
            acks,
            "activate",
            replace(
                "max({ack.progress for ack in acks.values()})",
                "max((ack.progress for ack in acks.values()), key=lambda progress: progress.round)",
            ),
        ),
    ),
    "a generation starts at the least advanced round": (
        _in(
            acks,
            "activate",
            replace("max({ack.progress for ack in acks.values()})", "min({ack.progress for ack in acks.values()})"),
        ),
    ),
    # --- lives and views ----------------------------------------------------------------------------------------------
    "a device comes back under its old life": (
        _in(
            Lives,
            "begin",
            replace(
                "Life(incarnation=self._latest, boot=self._chance.randbytes(BOOT_BYTES))",
                'Life(incarnation=1, boot=b"same")',
            ),
        ),
    ),
    "a receiver ignores small changes of a profile": (
        _in(
            View,
            "merge",
            replace(
                "profile.version > known.version",
                "profile.version > known.version and (profile.life != known.life"
                " or 3 * abs(profile.speed_kflops - known.speed_kflops) > known.speed_kflops)",
            ),
        ),
    ),
    "nobody asks for the profiles that it lacks": (
        _in(Turn, "ask_for_view", delete("self.emit(AskView(device=device))")),
    ),
    "a will is trusted": (
        _in(
            failure_detector,
            "note_status",
            insert(
                "if not online: _evict(turn, (device,), 'it did not answer')",
                after="turn.detector = attrs.evolve(turn.detector, offline=offline)",
            ),
        ),
    ),
    "a cut-off device evicts the others": (
        _in(
            State,
            "has_round_trip",
            replace(
                "self.own.connected and last_us is not None and self.now_us - last_us < self.silence_us",
                "True",
            ),
        ),
    ),
    "plans differ from device to device": (
        _in(
            Planner,
            "_step",
            insert(
                "if self._me > 'd1': decision = attrs.evolve(decision, plan_digest=decision.plan_digest[::-1],"
                " plan=attrs.evolve(decision.plan, seed=decision.plan.seed + 1))",
                before="self._decisions.keep(needed.view, decision)",
            ),
        ),
    ),
    "envelopes are let in again": (_in(Opener, "open", delete("self._remember(sealed)")),),
    "a profile said to one who asked is not believed when relayed": (
        _in(
            Opener,
            "open_relayed",
            insert(
                "if sealed.address.destination is not None: raise Refused(Reason.WRONG_ADDRESS, 'relayed')",
                after="self._verify(sealed)",
            ),
        ),
    ),
    # --- rounds -------------------------------------------------------------------------------------------------------
    "merged slices of another generation are taken": (
        _in(Rounds, "merged", replace(_OF_ANOTHER_PLAN, "False")),
        _in(Course, "span", replace(_OF_ANOTHER_PLAN, "False")),
        _NEVER_AHEAD,
    ),
    "a state of another plan is taken for a later one": (
        _in(
            Course,
            "serves",
            replace("active is not None and active.covers(arrived)", "True"),
        ),
    ),
    "contributions to another plan are merged": (
        _in(Course, "span", replace(_OF_ANOTHER_PLAN, "False")),
        _NEVER_AHEAD,
    ),
    "a contribution that comes twice is merged twice": (
        _in(Transfers, "on_offer", delete("if key in self._answers: return self._answer(key, to_all)")),
        _in(
            SliceMerge,
            "add",
            insert(
                "if sender in self._came: delta = delta + self._came.pop(sender).delta",
                before="if sender not in self._planned or sender in self._came: return False",
            ),
        ),
    ),
    "an owner merges without waiting for half": (
        _in(
            SliceMerge,
            "enough",
            replace("self.can_do_without(())", "bool(self._came)"),
        ),
    ),
    "an owner merges a slice anew when more has come": (
        _in(OwnSlice, "ready", replace("number in self._merging", "False")),
        _in(OwnSlice, "taking", replace("late or number in self._merging", "late")),
    ),
    "all contributions weigh the same": (
        _in(SliceMerge, "merged", replace("contribution.samples / samples", "1 / len(came)")),
    ),
    "a merged slice is applied twice": (
        _in(Completion, "_next_state", replace("torch.cat(deltas)", "torch.cat([2 * deltas[0], *deltas[1:]])")),
    ),
    "each device decides for itself when the run is over": (
        _in(
            Completion,
            "_next_state",
            replace(
                "state.epochs_ppb + epochs_ppb",
                "2 * BILLION * self._report.samples_trained // plan.samples_total",
            ),
        ),
    ),
    "who falls far behind waits for ever": (
        _in(
            Rounds,
            "merged",
            insert(
                "if key.round > self.in_hand + 4: return ()",
                before="self._parts.take(sender, header, data)",
            ),
        ),
        _NOTHING_IS_OVER,
    ),
    "who asks for a slice that nobody keeps is told to wait": (_NOTHING_IS_OVER,),
    # --- residuals ----------------------------------------------------------------------------------------------------
    "what an owner did not take is lost": (
        _in(Feedback, "commit", replace("left if fate is Fate.MERGED else carried", "left")),
    ),
    "what an owner took is sent again": (
        _in(Feedback, "commit", replace("left if fate is Fate.MERGED else carried", "carried")),
    ),
    "a residual outlives the state that it belongs to": (
        _in(Training, "take_state", delete("await self.steps.drop_residual()")),
    ),
    "an abandoned round leaves a trace": (_in(Feedback, "abandon", delete("self._sent = {}")),),
    "a new plan loses the residual": (_in(Feedback, "abandon", replace("self._sent = {}", "self.drop()")),),
    # --- checkpoints --------------------------------------------------------------------------------------------------
    "a device that comes back begins the run anew": (
        _in(Learner, "_first_state", replace("present.run == run", "False")),
    ),
    "the one before is written over": (_in(Checkpoints, "_write", delete("self._next = 1 - self._next")),),
    # --- runs ---------------------------------------------------------------------------------------------------------
    "a run begins while another is on": (_in(Runs, "answer", replace("self._results.is_over(run)", "True")),),
    "a run begins with whichever model is there": (_in(replica, "following", replace("final.run", "0")),),
    "whoever starts begins the next run": (_in(Runs, "first", replace("saved.run", "saved.run + saved.finished")),),
    # --- samples ------------------------------------------------------------------------------------------------------
    "lent samples are trained at home too": (_in(Plan, "ranges", delete("offsets[label] += count")),),
    "new data have the number of the former ones": (_in(DataSet, "of", replace("before.number + 1", "before.number")),),
    "new data take the place of the former ones before a plan means them": (
        _in(OwnData, "put", insert("self.present = latest", after="self.latest = latest")),
    ),
    "a plan goes on with data that it does not mean": (
        _in(
            OwnData,
            "go_by",
            replace("number == self.latest.number", "False"),
            replace("return number == self.present.number", "return True"),
        ),
    ),
    "a sample is dealt out again in the same epoch": (
        _in(EpochSampler, "skip", replace("self._dealt += rows", "self._dealt += max(1, rows - 1)")),
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
