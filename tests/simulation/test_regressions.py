"""Scenarios that showed a bug once, with the faults that it takes.

What was decided about them: docs/decisions/016-simulated-nodes-with-drawn-faults.md."""

import pytest

from tests.simulation.play import play
from tests.simulation.scenario import draw

MENDED = {
    "a device follows the result of its own former life": (3, (2,)),
    "after the end a borrower asks for what the next plan does not lend": (376, (2,)),
    "a planner that wakes a hair early wakes for ever": (754, (4,)),
    "an owner that is asked again and again keeps an answer to each": (1369, ()),
    "who was cut off at the end asks for slices that nobody keeps": (2896, (2,)),
    "what a device has to say piles up on a slow link": (1544, (3,)),
    "a state that is sent for an earlier plan comes late": (5019, (0, 1)),
    "questions for late acks hold up the acks": (6327, ()),
    "what was handed in before a sign of progress is no part of its round": (259, (0, 1, 3, 4)),
    "a plan that was begun late by a trainer that hung is taken up again": (1550, (2, 5, 7, 8)),
    "who cannot hear the one holder of its start says that this one stands still": (284, (3, 4, 5, 7, 8, 10)),
    "what is trained in the round that goes back to the best state counts as merged": (1016, ()),
    "a plan that was promised in the last run begins in the next one": (40061, (0, 9)),
    "who lacks its start, and hears what its one holder has merged, says that this one stands still": (
        41143,
        (0, 3, 4, 5, 7, 8, 9),
    ),
    "what a device said four lives ago is let in again": (30321, (4, 6, 8, 9, 11)),
    "answers to who asks again and again hold up what was asked for": (7894, ()),
}


@pytest.mark.parametrize("bug", MENDED)
def test_a_bug_that_was_mended_stays_away(bug: str) -> None:
    seed, faults = MENDED[bug]
    assert play(draw(seed).only(faults)).findings == ()
