"""A seed that shows each mutant, as `make mutants` or `make soak` found it."""

from collections.abc import Callable, Mapping

from tests.node.test_rounds import test_a_later_state_is_as_good_as_the_wanted_one_only_if_it_is_of_the_same_plan
from tests.simulation.scenario import Scenario, draw

KILLED_BY: Mapping[str, int] = {
    "an ack does not freeze the old generation": 1,
    "a round is completed after an ack": 1,
    "an owner merges after an ack": 1,
    "a device acks twice in a generation": 0,
    "a device joins a lower generation": 1,
    "a plan is begun by a majority": 0,
    "of equal rounds the first heard of is the start": 0,
    "a generation starts at the least advanced round": 0,
    "a device comes back under its old life": 3,
    "a receiver ignores small changes of a profile": 169,
    "nobody asks for the profiles that it lacks": 60,
    "a will is trusted": 0,
    "a cut-off device evicts the others": 9,
    "plans differ from device to device": 5,
    "envelopes are let in again": 2,
    "a profile said to one who asked is not believed when relayed": 65,
    "contributions to another plan are merged": 75,
    "a contribution that comes twice is merged twice": 1,
    "an owner merges without waiting for half": 5,
    "all contributions weigh the same": 1,
    "a merged slice is applied twice": 1,
    "each device decides for itself when the run is over": 3,
    "who falls far behind waits for ever": 293,
    "who asks for a slice that nobody keeps is told to wait": 2896,
    "what an owner did not take is lost": 5,
    "what an owner took is sent again": 1,
    "a residual outlives the state that it belongs to": 0,
    "an abandoned round leaves a trace": 5,
    "a new plan loses the residual": 0,
    "lent samples are trained at home too": 1,
    "a device that comes back begins the run anew": 21007,
    "the one before is written over": 21007,
    "a run begins while another is on": 1001,
    "a run begins with whichever model is there": 1001,
    "whoever starts begins the next run": 1283,
    "new data have the number of the former ones": 6000,
    "new data take the place of the former ones before a plan means them": 6000,
    "a plan goes on with data that it does not mean": 6000,
    "a sample is dealt out again in the same epoch": 0,
    "merged slices of another generation are taken": 75,
    "an owner merges a slice anew when more has come": 24,
}

FAULTS: Mapping[str, tuple[int, ...]] = {
    "who falls far behind waits for ever": (1,),
    "who asks for a slice that nobody keeps is told to wait": (0, 1, 2),
}
"""Those of the seed's faults that it takes, where all of them together take another course, or longer."""

VARIANTS: Mapping[str, int] = {
    "who asks for a slice that nobody keeps is told to wait": 18,
}
"""The variant of the seed's scenario that it takes (`Scenario.varied`): such holes show only at some moments."""


SHOWN_BY_TESTS: Mapping[str, Callable[[], None]] = {
    "a state of another plan is taken for a later one": lambda: (
        test_a_later_state_is_as_good_as_the_wanted_one_only_if_it_is_of_the_same_plan({"generation": 2})
    ),
}
"""What finds the hole where the seed that showed it does so no longer and no other one is known: for this one none of
400 variants of seed 5019, which showed it."""


def killer(mutant: str) -> Scenario:
    """The scenario that is known to show it."""
    scenario = draw(KILLED_BY[mutant])
    if mutant in FAULTS:
        scenario = scenario.only(FAULTS[mutant])
    return scenario.varied(VARIANTS[mutant]) if mutant in VARIANTS else scenario
