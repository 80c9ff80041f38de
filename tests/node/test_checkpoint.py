"""Checkpoints as files, and which of them are read."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from crowd.actors.trainer import checkpoints as module
from crowd.actors.trainer.checkpoint import (
    MAGIC,
    Checkpoint,
    Damaged,
    OfAnother,
    Owner,
    from_bytes,
    kept_inner,
    to_bytes,
)
from crowd.actors.trainer.checkpoints import ASIDE, BYTES_AN_HOUR_MAX, FILES, Checkpoints
from crowd.learning import replica
from crowd.ports import Store
from devices.emulated import VirtualCompute
from devices.store import FileStore, MemoryStore
from tests.learning.nets import layout_of, make_task, normalised
from tests.support.virtual import virtual_time

OWNER = Owner(cluster="home", fingerprint=b"fingerprint")
MODEL = normalised()
LAYOUT = layout_of(MODEL)
HOUR_US = 3_600_000_000


def checkpoint(number: int = 3, optimizer: Any = None) -> Checkpoint:
    state = attrs.evolve(replica.initial(MODEL, 1, LAYOUT), round=number, samples=10 * number)
    inner = {} if optimizer is None else kept_inner(optimizer.state_dict()["state"])
    return Checkpoint(state=state, residual=torch.randn(LAYOUT.elements), inner=inner)


def read(data: bytes, owner: Owner = OWNER) -> Checkpoint:
    return from_bytes(data, owner, LAYOUT, len(checkpoint().state.counters))


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        torch.optim.AdamW,
        torch.optim.ASGD,
        torch.optim.Adagrad,
        torch.optim.RMSprop,
        torch.optim.Rprop,
    ],
)
def test_state_residual_and_inner_optimiser_come_back_as_they_were(make: Any) -> None:
    model = make_task().model()
    optimizer = make(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()
    written = checkpoint(optimizer=optimizer)
    found = read(to_bytes(written, OWNER))
    assert found.state.digest == written.state.digest
    assert found.residual is not None
    assert written.residual is not None
    assert torch.equal(found.residual, written.residual)
    again = make(model.parameters())
    again.load_state_dict(again.state_dict() | {"state": found.inner})
    before, after = optimizer.state_dict()["state"], again.state_dict()["state"]
    assert before.keys() == after.keys()
    for parameter, values in before.items():
        assert values.keys() == after[parameter].keys()
        for name, value in values.items():
            there = after[parameter][name]
            assert torch.equal(value, there) if isinstance(value, torch.Tensor) else value == there, name


def test_parameters_may_share_a_tensor_of_the_optimiser_s() -> None:
    shared = torch.arange(3.0)
    inner = kept_inner({0: {"mean": shared, "flat": shared.view(1, 3)}, 1: {"mean": shared.flip(0), "count": 2**40}})
    assert inner is not None
    found = read(to_bytes(attrs.evolve(checkpoint(), inner=inner), OWNER)).inner
    assert found is not None
    assert torch.equal(found[0]["flat"], shared.view(1, 3))
    assert torch.equal(found[1]["mean"], shared.flip(0))
    assert found[1]["count"] == 2**40


def test_the_end_of_a_run_is_the_state_alone() -> None:
    written = Checkpoint(state=checkpoint().state, residual=None, inner=None)
    found = read(to_bytes(written, OWNER))
    assert (found.state.digest, found.residual, found.inner) == (written.state.digest, None, None)


@pytest.mark.parametrize(
    "state",
    [
        {0: {"history": [torch.zeros(3)]}},
        {0: {"mean": torch.eye(3).to_sparse()}},
        {0: {"mean": torch.zeros(3, dtype=torch.complex64)}},
        {"all": {"step": 1}},
        {0: 5},
    ],
)
def test_an_optimiser_whose_state_is_made_of_other_things_begins_anew(state: dict[Any, Any]) -> None:
    assert kept_inner(state) is None
    assert read(to_bytes(attrs.evolve(checkpoint(), inner=kept_inner(state)), OWNER)).inner is None


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_can_change_unseen(place: float, bit: int) -> None:
    data = bytearray(to_bytes(checkpoint(), OWNER))
    data[int(place * len(data))] ^= 1 << bit
    with pytest.raises(Damaged):
        read(bytes(data))


@given(part=st.floats(0, 1, exclude_max=True))
def test_a_part_of_a_checkpoint_is_none(part: float) -> None:
    data = to_bytes(checkpoint(), OWNER)
    with pytest.raises(Damaged):
        read(data[: int(part * len(data))])


def test_a_later_version_and_another_owner_are_told_as_such() -> None:
    data = to_bytes(checkpoint(), OWNER)
    with pytest.raises(Damaged, match="version 9 of the format, and this program knows version 2"):
        read(MAGIC + b"\x09" + data[len(MAGIC) + 1 :])
    with pytest.raises(OfAnother, match="the cluster 'home'"):
        read(data, Owner(cluster="garage", fingerprint=b"fingerprint"))
    with pytest.raises(OfAnother, match="another task"):
        read(data, Owner(cluster="home", fingerprint=b"other"))


# --- in the store -----------------------------------------------------------------------------------------------------


def checkpoints(store: Store, owner: Owner = OWNER) -> Checkpoints:
    counters = len(checkpoint().state.counters)
    return Checkpoints(store=store, owner=owner, layout=LAYOUT, counters_count=counters, every_us=1_000_000)


class Flaky(MemoryStore):
    fails = False

    def write(self, name: str, data: bytes) -> None:
        if self.fails:
            raise OSError("the disk is full")
        super().write(name, data)


@virtual_time
async def test_the_one_before_is_kept_and_used_where_the_last_is_damaged(tmp_path: Path) -> None:
    store, compute = FileStore(tmp_path), VirtualCompute(1000)
    kept = checkpoints(store)
    for number in (1, 2, 3):  # in turn to the first file, the second, and the first
        await kept.save(checkpoint(number), compute)
    assert kept.saved is not None
    assert kept.saved.round == 3
    store.write(FILES[0], (store.read(FILES[0]) or b"")[:-5])
    found = checkpoints(store)
    with capture_logs() as logs:
        taken = found.take()
    assert taken is not None
    assert taken.state.round == 2
    said = [(line["event"], line["file"], line["kept_as"]) for line in logs]
    assert said == [("checkpoint_not_used", FILES[0], FILES[0] + ASIDE)]
    assert store.read(FILES[0]) is None
    assert store.read(FILES[0] + ASIDE) is not None
    await found.save(checkpoint(4), compute)
    assert store.read(FILES[0]) is not None, "the one that can be read is left alone"
    again = checkpoints(store).take()
    assert again is not None
    assert again.state.round == 4


@virtual_time
async def test_another_task_s_is_kept_aside() -> None:
    store, compute = MemoryStore(), VirtualCompute(1000)
    await checkpoints(store).save(checkpoint(), compute)
    data = store.read(FILES[0])
    other = checkpoints(store, Owner(cluster="home", fingerprint=b"other"))
    assert other.take() is None
    assert other.saved is None
    assert store.read(FILES[0] + ASIDE) == data


@virtual_time
async def test_a_full_disk_is_said_once_until_there_is_room_again() -> None:
    store, compute = Flaky(), VirtualCompute(1000)
    kept = checkpoints(store)
    with capture_logs() as logs:
        for number, fails in enumerate((True, True, False, True)):
            store.fails = fails
            assert await kept.save(checkpoint(number), compute) is not fails
    assert [line["event"] for line in logs] == ["checkpoint_not_saved", "checkpoint_saved", "checkpoint_not_saved"]


@pytest.mark.parametrize("bytes_an_hour", [BYTES_AN_HOUR_MAX, 5000])
@virtual_time
async def test_it_is_due_after_a_while_and_not_so_often_that_a_card_wears_out(
    monkeypatch: pytest.MonkeyPatch, bytes_an_hour: int
) -> None:
    now_us = 0
    monkeypatch.setattr(module, "now_us", lambda: now_us)
    monkeypatch.setattr(module, "BYTES_AN_HOUR_MAX", bytes_an_hour)
    kept = checkpoints(MemoryStore())
    running, ended = (attrs.evolve(checkpoint().state.progress, finished=finished) for finished in (False, True))
    assert not kept.is_due(running)
    assert kept.is_due(ended)
    now_us = 1_000_000
    assert kept.is_due(running)
    await kept.save(checkpoint(), VirtualCompute(1000))
    pause_us = max(1_000_000, len(to_bytes(checkpoint(), OWNER)) * HOUR_US // bytes_an_hour)
    now_us += pause_us - 1
    assert not kept.is_due(running)
    now_us += 1
    assert kept.is_due(running)
