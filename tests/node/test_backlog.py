"""What a trainer is told too early: what is kept of it, and until when."""

import pytest

from crowd.actors import inbox
from crowd.actors.inbox import TrainerMessage
from crowd.actors.trainer.backlog import BACKLOG_MAX, Backlog, place_of
from crowd.agreement import events
from crowd.agreement.ack import StateProgress
from crowd.planning.plan import Encoding
from crowd.protocol.messages import AskSamples, AskState, Contribution, MergedSlice, Parameters, Revoke, SliceKey
from crowd.units import Life, device_id

ADA, LIFE = device_id("ada"), Life(incarnation=1, boot=b"b")
KEY = SliceKey(generation=3, plan_digest=b"plan", round=1, index=0)
ASK_STATE: TrainerMessage = inbox.Heard(sender=ADA, life=LIFE, message=AskState(digest=b"d"))


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (
            inbox.Arrived(sender=ADA, cargo=Contribution(key=KEY, encoding=Encoding.FLOAT32, samples=1), data=b""),
            (3, 1),
        ),
        (
            inbox.Arrived(sender=ADA, cargo=MergedSlice(key=KEY, encoding=Encoding.FLOAT32, senders={}), data=b""),
            (3, 0),
        ),
        (
            inbox.Arrived(
                sender=ADA,
                cargo=Parameters(generation=4, plan_digest=b"", round=1, exchange=0, encoding=Encoding.FLOAT32),
                data=b"",
            ),
            (4, 0),
        ),
        (
            inbox.Heard(
                sender=ADA,
                life=LIFE,
                message=AskSamples(generation=5, plan_digest=b"plan", data_epoch=0, ranges=(), names=False),
            ),
            (5, 0),
        ),
        (ASK_STATE, None),
        (inbox.LinkUp(), None),
    ],
)
def test_what_belongs_to_a_generation_or_a_round_names_it(
    message: TrainerMessage, place: tuple[int, int] | None
) -> None:
    assert place_of(message) == place


def test_of_too_much_the_oldest_that_is_sent_again_is_dropped_and_nothing_else() -> None:
    backlog = Backlog()
    kept: list[TrainerMessage] = [
        inbox.Heard(sender=ADA, life=LIFE, message=Revoke(data_epoch=0)),
        events.RoundAccepted(progress=StateProgress(run=1)),
    ]
    for message in (*kept, *[ASK_STATE] * BACKLOG_MAX):
        backlog.put(message)
    assert len(backlog) == BACKLOG_MAX
    assert [backlog.next(), backlog.next()] == kept
