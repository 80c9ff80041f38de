"""A lender that comes back: only what its borrower has not had yet moves again."""

from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from torch.utils.data import TensorDataset

from crowd.node import TaskFunction
from crowd.planning.profile import Share
from crowd.protocol.messages import AskSamples, Offer, SampleNames, Samples
from devices.store import MemoryStore
from tests.node.cluster import LIMIT_S, Cluster, WatchedHub, blobs, draw, is_sealed, read, round_of
from tests.node.test_run import expect_one_model
from tests.support.virtual import virtual_time

BEFORE, AFTER = 3000, 3300
SAMPLE_BYTES, KEY_BYTES = 40, 8
WITHOUT_IT_S = 60
"""For so long it is away: the others have gone on without it."""


LONG: dict[str, Any] = {"target": None, "epochs_max": 60}
"""Five minutes."""


def first(count: int) -> TaskFunction:
    """A task with the first of the lender's samples."""
    inputs, labels = draw(AFTER, 7).tensors
    return blobs(**LONG, data=TensorDataset(inputs[:count], labels[:count]))


def lent_bytes(cluster: Cluster, kind: type) -> int:
    """Bytes that the lender has offered of that kind."""
    offers = [message for message in cluster.hub.messages("lender") if isinstance(message, Offer)]
    return sum(offer.size_bytes for offer in offers if isinstance(offer.cargo, kind))


class Return:
    """A lender of whose samples all are lent goes without a word, and comes back with others."""

    def __init__(self) -> None:
        self.cluster = Cluster("lender", "trainer")
        self.lent = (0, 0)
        """Bytes of samples and of names that were lent before it went."""

    async def play(self, samples: int, *, away_s: float = WITHOUT_IT_S, **changes: Any) -> None:
        cluster, store = self.cluster, MemoryStore()
        cluster.add("lender", first(BEFORE), policy="ship_once", executes=False, store=store)
        cluster.add("trainer", blobs(3000, **LONG), policy="ship_once", executes=False, speed_kflops=2_000)

        async def go_and_return() -> None:
            await round_of(cluster.nodes["trainer"], 2)
            self.lent = (lent_bytes(cluster, Samples), lent_bytes(cluster, SampleNames))
            cluster.unplug("lender")
            await anyio.sleep(away_s)
            cluster.add("lender", first(samples), policy="ship_once", executes=False, store=store, **changes)
            await cluster.play("lender")

        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_and_return)
                tasks.start_soon(cluster.play, "lender")
                tasks.start_soon(cluster.play, "trainer")
        expect_one_model(cluster)

    @property
    def lent_again(self) -> tuple[int, int]:
        """Bytes of samples and of names since."""
        samples, names = self.lent
        return lent_bytes(self.cluster, Samples) - samples, lent_bytes(self.cluster, SampleNames) - names


@pytest.mark.parametrize("away_s", [0, WITHOUT_IT_S])
@virtual_time
async def test_a_lender_that_returns_with_a_tenth_more_lends_the_tenth_and_the_names_of_all(away_s: float) -> None:
    story = Return()
    await story.play(AFTER, away_s=away_s)
    assert story.lent == (BEFORE * SAMPLE_BYTES, 0)
    assert story.lent_again == ((AFTER - BEFORE) * SAMPLE_BYTES, AFTER * KEY_BYTES)


@virtual_time
async def test_a_lender_that_returns_as_it_was_lends_names_alone() -> None:
    story = Return()
    await story.play(BEFORE)
    assert story.lent_again == (0, BEFORE * KEY_BYTES)


class Deaf(WatchedHub):
    """Loses the first question for names."""

    lost = 0

    async def carry(self, message: Any, *, publisher: Any, retain: bool) -> None:
        if not self.lost and is_sealed(message.delivery):
            match read(message.delivery):
                case AskSamples(names=True):
                    self.lost += 1
                    return
                case _:
                    pass
        await super().carry(message, publisher=publisher, retain=retain)


@virtual_time
async def test_a_question_for_names_that_is_lost_is_asked_again() -> None:
    story = Return()
    story.cluster.hub = hub = Deaf()
    await story.play(AFTER)
    assert hub.lost == 1
    assert story.lent_again == ((AFTER - BEFORE) * SAMPLE_BYTES, AFTER * KEY_BYTES)


@virtual_time
async def test_a_lender_that_returns_and_shares_no_more_has_everything_deleted_and_tells_no_names() -> None:
    story = Return()
    with capture_logs() as logs:
        await story.play(AFTER, share=Share.NEVER)
    assert [line["lender"] for line in logs if line["event"] == "samples_given_back"] == ["lender"]
    assert story.lent_again == (0, 0)
    asked = [message for message in story.cluster.hub.messages("trainer") if isinstance(message, AskSamples)]
    assert not any(ask.names for ask in asked)
