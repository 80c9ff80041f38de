import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, cast

import attrs
import numpy as np
import pytest
import safetensors.torch
import torch

from crowd.errors import MalformedMessage, TrainingDiverged
from crowd.learning import replica, state_file
from crowd.learning.layout import Layout
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import Outer, OuterKind
from crowd.planning.round_report import RoundReport
from crowd.units import DeviceId
from tests.learning import golden
from tests.learning.nets import layout_of, linear, normalised

GOLDEN = {
    "plain": "e4dc480bd764f40f62c460c1fda5fca6",
    "nesterov": "d704f63dc3f4f522c918ca0eb33f6bf6",
    "float32": "074eb12f11888125e453643a92edf893",
    "float16": "d8a086cce11bc5c6b4d4bf129e74c16a",
    "blockwise8": "d4673016752c42a411cfcbe9ed485ba8",
    "nothing": "7738f6a9b83685f451460270e753d684",
}
CAPABILITIES = {"AVX2": ["default", "avx2"], "AVX512": ["default", "avx2", "avx512"]}.get(
    torch.backends.cpu.get_cpu_capability(), ["default"]
)
PLAIN = Outer()
NESTEROV = Outer(kind=OuterKind.NESTEROV, rate_ppm=700_000, momentum_ppm=900_000)


def state_of(model: torch.nn.Module) -> ReplicaState:
    return replica.initial(model, 1, layout_of(model))


def plain_state(vector: torch.Tensor) -> ReplicaState:
    """All of it parameters."""
    return ReplicaState(layout=Layout.plain(vector.numel()), vector=vector)


def next_state(state: ReplicaState, delta: torch.Tensor, outer: Outer = PLAIN) -> ReplicaState:
    return replica.apply(
        state, outer, delta, samples=5, epochs_ppb=0, counters=state.counters, streak=0, finished=False
    )


# --- bitwise identical everywhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_states_and_decoded_deltas_are_bitwise_the_same_under_every_processor_capability(capability: str) -> None:
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", golden.__name__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["capability"].lower() == capability
    assert answer["digests"] == GOLDEN


def test_a_plain_round_adds_the_scaled_delta_with_two_roundings() -> None:
    theta, delta = golden.numbers(0), golden.numbers(1)
    state = plain_state(torch.from_numpy(theta))
    after = next_state(state, torch.from_numpy(delta), Outer(rate_ppm=700_000))
    expected = theta + (np.float32(0.7) * delta).astype(np.float32)
    assert np.array_equal(after.vector.numpy(), expected)
    assert after.momentum is None


def test_a_nesterov_round_keeps_momentum_and_looks_ahead() -> None:
    theta, first, second = (golden.numbers(seed) for seed in range(3))
    state = plain_state(torch.from_numpy(theta))
    for delta in (first, second):
        state = next_state(state, torch.from_numpy(delta), NESTEROV)
    rate, decay = np.float32(0.7), np.float32(0.9)
    momentum, vector = np.zeros_like(theta), theta
    for delta in (first, second):
        momentum = decay * momentum + delta
        vector = vector + rate * (delta + decay * momentum)
    assert state.momentum is not None
    assert np.array_equal(state.momentum.numpy(), momentum)
    assert np.array_equal(state.vector.numpy(), vector)


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_a_round_counts_itself_and_its_samples_and_leaves_the_old_state_alone() -> None:
    state = state_of(normalised())
    before = state.vector.clone()
    after = replica.apply(
        state, Outer(), torch.ones_like(before), samples=12, epochs_ppb=250_000, counters=(7,), streak=1, finished=True
    )
    assert (after.run, after.round, after.samples, after.streak, after.finished) == (1, 1, 12, 1, True)
    assert after.epochs_ppb == state.epochs_ppb + 250_000
    assert after.counters == (7,)
    assert torch.equal(state.vector, before)
    assert after.progress.digest == after.digest
    assert after.progress > state.progress


def test_integer_buffers_follow_the_largest_and_never_fall() -> None:
    state = attrs.evolve(state_of(normalised()), counters=(9,))
    after = replica.apply(
        state, Outer(), torch.zeros_like(state.vector), samples=1, epochs_ppb=0, counters=(4,), streak=0, finished=False
    )
    assert after.counters == (9,)


@pytest.mark.parametrize(("elements", "counters"), [(1, (0,)), (None, ()), (None, (1, 2))])
def test_a_merged_delta_of_another_length_is_refused(elements: int | None, counters: tuple[int, ...]) -> None:
    state = state_of(normalised())
    delta = torch.zeros(elements or state.vector.numel())
    with pytest.raises(MalformedMessage, match="does not fit"):
        replica.apply(state, Outer(), delta, samples=1, epochs_ppb=0, counters=counters, streak=0, finished=False)


def test_a_state_that_overflows_is_reported_as_divergence() -> None:
    state = plain_state(torch.full((3,), 3e38))
    with pytest.raises(TrainingDiverged, match="round 1"):
        next_state(state, torch.full((3,), 3e38))


# --- models -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def stir(model: torch.nn.Module) -> None:
    """Give every parameter and buffer another value."""
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.add_(3)


def test_loading_a_state_restores_parameters_and_all_buffers_in_place() -> None:
    model = normalised()
    model(torch.randn(4, 6))
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    state = state_of(model)
    assert state.counters == (1,)  # num_batches_tracked
    stir(model)
    replica.load(model, state)
    assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))


def test_a_state_does_not_share_memory_with_its_model() -> None:
    one_tensor = torch.nn.Linear(4, 3, bias=False)
    state = state_of(one_tensor)
    before = state.vector.clone()
    stir(one_tensor)
    assert torch.equal(state.vector, before)


def test_tied_parameters_are_one_part_of_the_state_and_two_names_in_the_file() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    state = state_of(model)
    assert state.vector.numel() == 9
    assert sorted(safetensors.torch.load(replica.trained_model_bytes(model, state))) == ["0.weight", "1.weight"]


def test_the_exported_file_loads_into_a_fresh_model() -> None:
    trained, fresh = normalised(), normalised()
    fresh.load_state_dict(safetensors.torch.load(replica.trained_model_bytes(normalised(), state_of(trained))))
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in trained.state_dict().items())


def strided() -> torch.nn.Module:
    """Parameters and a buffer whose elements are in another order in memory."""
    model: Any = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 5))
    model[2].weight = torch.nn.Parameter(torch.randn(4, 5).t())
    model.register_buffer("positions", torch.arange(4.0).expand(3, 4))
    return cast(torch.nn.Module, model.to(memory_format=torch.channels_last))


def test_parameters_that_are_not_contiguous_are_kept_as_they_are_and_written_in_the_plain_order() -> None:
    trained, other = strided(), strided()
    state = state_of(trained)
    strides = [parameter.stride() for parameter in other.parameters()]
    written = safetensors.torch.load(replica.trained_model_bytes(other, state))
    assert [parameter.stride() for parameter in other.parameters()] == strides
    assert all(torch.equal(tensor, written[name]) for name, tensor in trained.state_dict().items())
    assert replica.from_model(other, state.layout)[0].equal(state.vector)


# --- digests and bytes ------------------------------------------------------------------------------------------------

STATE = ReplicaState(
    layout=Layout.plain(5),
    vector=torch.arange(5.0),
    counters=(2, -3),
    momentum=torch.ones(5),
    run=1,
    round=2,
    samples=30,
    streak=1,
    report=RoundReport(rates={DeviceId("ben"): 3, DeviceId("ada"): 7}),
)


@pytest.mark.parametrize(
    "changes",
    [
        {"vector": torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0000005])},
        {"vector": torch.tensor([-0.0, 1.0, 2.0, 3.0, 4.0])},
        {"counters": (2, -2)},
        {"momentum": None},
        {"momentum": torch.zeros(5)},
        {"run": 2},
        {"round": 3},
        {"samples": 31},
        {"epochs_ppb": 1},
        {"streak": 0},
        {"closing": True},
        {"finished": True},
        {"report": RoundReport()},
        {"report": RoundReport(rates={DeviceId("ada"): 8, DeviceId("ben"): 3})},
        {"report": RoundReport(rates={DeviceId("ada"): 7, DeviceId("cem"): 3})},
    ],
)
def test_the_digest_covers_every_part_of_a_state(changes: dict[str, Any]) -> None:
    assert attrs.evolve(STATE, **changes).digest != STATE.digest


@pytest.mark.parametrize(
    "state", [STATE, attrs.evolve(STATE, closing=True), attrs.evolve(STATE, momentum=None, counters=(), finished=True)]
)
def test_a_state_survives_the_way_through_bytes(state: ReplicaState) -> None:
    data = state_file.to_bytes(state)
    back = state_file.from_bytes(data, STATE.layout, len(state.counters))
    assert back.digest == state.digest
    assert back.progress == state.progress
    assert back.closing == state.closing
    assert back.report == state.report
    assert (back.counters, back.streak, back.momentum is None) == (state.counters, 1, state.momentum is None)
    assert state_file.to_bytes(back) == data


def written(tensors: Mapping[str, torch.Tensor | None] | None = None, **changes: object) -> bytes:
    """A file like that of `STATE`, with other tensors or figures."""
    plain = {"vector": STATE.vector, "counters": torch.tensor(STATE.counters), "momentum": STATE.momentum}
    metrics = {
        "run": 1,
        "base": 0,
        "round": 2,
        "samples": 30,
        "epochs_ppb": 0,
        "streak": 1,
        "waited": 0,
        "rates": {"ada": 7, "ben": 3},
        "closing": False,
        "finished": False,
        "digest": STATE.digest.hex(),
    }
    kept = {name: tensor for name, tensor in {**plain, **(tensors or {})}.items() if tensor is not None}
    described = {name: figure for name, figure in (metrics | changes).items() if figure is not None}
    return safetensors.torch.save(kept, metadata={"state": json.dumps(described)})


def test_the_file_that_the_next_test_spoils_is_otherwise_valid() -> None:
    assert state_file.from_bytes(written(), STATE.layout, 2).digest == STATE.digest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no safetensors at all",
        written()[:-1],
        written() + bytes(100_000),
        written({"vector": torch.arange(4.0)}),
        written({"vector": torch.arange(5.0).reshape(5, 1)}),
        written({"vector": torch.arange(5.0, dtype=torch.float64)}),
        written({"vector": torch.full((5,), torch.nan)}),
        written({"momentum": torch.full((5,), torch.inf)}),
        written({"counters": torch.tensor([2])}),
        written({"counters": torch.tensor([2, -3], dtype=torch.int32)}),
        written({"vector": None}),
        written({"more": torch.zeros(1)}),
        safetensors.torch.save({"vector": STATE.vector, "counters": torch.tensor(STATE.counters)}),
        safetensors.torch.save({"vector": STATE.vector}, metadata={"state": "[]"}),
        written(round=None),
        written(rates=None),
        written(rates={}),
        written(rates=[7]),
        written(rates={"ada": 7, "ben": 0}),
        written(rates={"ada": 7, "ben": True}),
        written(rates={"ada": 7, "ben": 10**15 + 1}),
        written(rates={"ada": 7, "Not An ID": 3}),
        written(round="2"),
        written(round=True),
        written(round=-1),
        written(round=2**70),
        written(finished=0),
        written(closing=0),
        written(closing=None),
        written(digest="zz"),
        written(digest=None),
        written(digest=7),
        written(samples=31),
        written({"vector": torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0])}),
    ],
)
def test_anything_but_the_bytes_of_a_state_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        state_file.from_bytes(data, STATE.layout, 2)


def test_a_model_without_buffers_has_no_counters() -> None:
    assert state_of(linear()).counters == ()
