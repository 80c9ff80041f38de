"""One run follows the other: by request, once on all devices, from the present model, or from a network drawn anew."""

import itertools
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
import torch
from structlog.testing import capture_logs

from crowd.actors.planner.timetable import LATER_MAX
from crowd.errors import RunRefused
from crowd.node import Node
from tests.node.cluster import round_of
from tests.node.living import FEW, NAMES, NOON, Living, weights
from tests.support.virtual import virtual_time

# --- by request -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", ["crowd_learning", "fedavg", "fedbuff", "d_psgd", "diloco", "mercury", "ship_once", "all_reduce"]
)
@virtual_time
async def test_the_next_run_goes_on_from_the_present_model_whatever_the_manner(policy: str) -> None:
    async with Living(policy=policy, **FEW) as living:
        digest, value = await living.over(1)
        assert await living.cluster.nodes["ben"].train() == 2
        second, next_value = await living.over(2)
        curves = [curve for node in living.cluster.nodes.values() if (curve := node.results[node.name].curve)]
    assert living.starts.bases == [(1, 0), (2, 1)]
    assert second != digest
    assert {curve[0].value for curve in curves} == {value}, "the model is evaluated before it is trained on"
    assert curves[0][0].loss is None
    assert value is not None
    assert next_value is not None
    assert next_value >= value


@virtual_time
async def test_what_several_ask_for_is_done_once() -> None:
    async with Living() as living:
        await living.over(1)
        asked: list[int] = []

        async def ask(node: Node) -> None:
            asked.append(await node.train())

        async with anyio.create_task_group() as tasks:
            for node in living.cluster.nodes.values():
                tasks.start_soon(ask, node)
        await living.over(2)
        assert asked == [2, 2, 2]
        assert await living.cluster.nodes["cy"].train(follows=1) == 2, "that has been done"
        await anyio.sleep(30)
        await living.over(2)


@virtual_time
async def test_no_run_begins_while_another_is_on() -> None:
    async with Living() as living:
        await round_of(living.cluster.nodes["ada"], 1)
        with pytest.raises(RunRefused, match="run 1 is not over"):
            await living.cluster.nodes["ada"].train()
        await living.over(1)


@virtual_time
async def test_a_fresh_run_forgets_the_present_model_on_all_devices() -> None:
    async with Living() as living:
        _, value = await living.over(1)
        await living.cluster.nodes["cy"].train(fresh=True)
        await living.over(2)
        first = living.cluster.nodes["ada"].results[living.cluster.nodes["ada"].name].curve[0]
    assert living.starts.bases == [(1, 0), (2, 2)]
    assert value is not None
    assert first.value is not None
    assert first.value < value
    assert first.loss is not None, "there is no model to evaluate first"


# --- only a better model takes the place of the present one -----------------------------------------------------------


@pytest.mark.parametrize("target", [None, 0.7])
@virtual_time
async def test_a_model_that_is_not_as_good_does_not_take_the_place_of_the_present_one(target: float | None) -> None:
    ruins = [False]
    ruinous = {
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.05, maximize=ruins[0]),
        "target": target,
        "epochs_max": 2,
    }
    async with Living(**(dict(FEW) | ruinous)) as living:
        _, value = await living.over(1)
        kept = weights(living.cluster.nodes["ada"])
        ruins[0] = True
        await living.cluster.nodes["ada"].train()
        _, after = await living.over(2)
        node = living.cluster.nodes["ben"]
        assert torch.equal(weights(node), kept)
        assert after == value
        assert node.results[node.name].reached
        assert node.results[node.name].samples_trained >= 200, "an epoch, at least"


@virtual_time
async def test_a_target_that_the_present_model_meets_ends_no_run_before_its_first_epoch() -> None:
    async with Living(target=0.75, epochs_max=100) as living:
        await living.over(1)
        await living.cluster.nodes["ada"].train()
        await living.over(2)
        results = [node.results[node.name] for node in living.cluster.nodes.values()]
    assert min(result.samples_trained for result in results) >= 200
    assert all(result.reached for result in results)


# --- who was away -----------------------------------------------------------------------------------------------------


@virtual_time
async def test_an_older_model_is_no_start_and_who_was_away_joins_the_run_that_is_on() -> None:
    async with Living(*NAMES) as living:
        await living.over(1)
        living.switch_off("cy")
        await living.cluster.nodes["ada"].train()
        digest, _ = await living.over(2)
        again = living.switch_on("cy")
        assert await living.over(2) == (digest, again.results[again.name].value), "it has the model of run 2"
        living.switch_off("cy")
        await living.cluster.nodes["ada"].train()
        await round_of(living.cluster.nodes["ada"], 2)
        living.switch_on("cy")
        await living.over(3)
    assert living.starts.bases == [(1, 0), (2, 1), (3, 2)]


@virtual_time
async def test_a_cluster_that_has_finished_rests_when_all_its_devices_start_again() -> None:
    async with Living() as living:
        before = await living.over(1)
        for name in NAMES:
            living.switch_off(name)
        with capture_logs() as logs:
            for name in NAMES:
                living.switch_on(name)
            assert await living.over(1) == before
            await anyio.sleep(60)
        assert not [line for line in logs if line["event"] == "round_complete"]
        await living.cluster.nodes["ben"].train()
        await living.over(2)
    assert living.starts.bases == [(1, 0), (2, 1)]


@virtual_time
async def test_a_power_cut_at_the_beginning_of_a_run_does_not_lose_that_it_was_wanted() -> None:
    async with Living() as living:
        await living.over(1)
        await living.cluster.nodes["ben"].train()
        await round_of(living.cluster.nodes["ben"], 2)
        for name in NAMES:
            living.switch_off(name)
        for name in NAMES:
            living.switch_on(name)
        await living.over(2)


# --- by the clock -----------------------------------------------------------------------------------------------------


async def local_times_of_runs(count: int, **train: Any) -> list[datetime]:
    """When runs began on two devices, from the second one on."""
    async with Living("ada", "ben", train=train) as living:
        begun = []
        for run in range(1, count + 1):
            await living.over(run)
            assert await living.cluster.nodes["ada"].begun() == run + 1
            begun.append(NOON + timedelta(seconds=anyio.current_time()))
        await living.over(count + 1)
    assert living.starts.bases == [(run, run - 1) for run in range(1, count + 2)]
    return begun


@virtual_time
async def test_runs_begin_at_a_time_of_day() -> None:
    begun = await local_times_of_runs(3, at="02:00")
    late = [time - datetime(2026, 12, day, 2).astimezone() for day, time in enumerate(begun, 1)]
    assert all(timedelta(0) <= each < LATER_MAX for each in late)
    assert len(set(late)) == 3, "another moment each time"


@virtual_time
async def test_runs_begin_after_a_while() -> None:
    begun = await local_times_of_runs(2, every="90m")
    for before, after in itertools.pairwise(begun):
        assert timedelta(minutes=90) <= after - before < timedelta(minutes=96)


@virtual_time
async def test_a_run_that_was_due_while_all_were_off_begins_when_they_are_back() -> None:
    async with Living("ada", "ben", train={"every": "1h"}) as living:
        await living.over(1)
        for name in ("ada", "ben"):
            living.switch_off(name)
        await anyio.sleep(2 * 3600)
        for name in ("ada", "ben"):
            living.switch_on(name)
        await living.over(2)
        assert anyio.current_time() < 2 * 3600 + 300


@virtual_time
async def test_a_run_begins_when_there_are_so_many_more_samples() -> None:
    async with Living("ada", "ben", train={"when_new": 0.4}) as living:
        await living.over(1)
        await anyio.sleep(600)
        assert living.cluster.nodes["ada"].run == 1, "nothing is new"
        living.switch_on("cy")
        await living.over(2)
        await anyio.sleep(600)
        await living.over(2)
        living.switch_off("cy")
        await anyio.sleep(600)
        living.switch_on("cy")
        await anyio.sleep(600)
        assert living.cluster.nodes["ada"].run == 2, "they were there in the last run"
    assert living.starts.bases == [(1, 0), (2, 1)]


@virtual_time
async def test_samples_that_are_too_few_to_matter_begin_no_run() -> None:
    async with Living("ada", "ben", train={"when_new": 0.6}) as living:
        await living.over(1)
        living.switch_on("cy")
        await anyio.sleep(1200)
        await living.over(1)
