import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowd.errors import MalformedMessage, TrainingDiverged
from crowd.learning.encoding import CODINGS, decode, encode, with_feedback
from crowd.learning.layout import Pieces
from crowd.planning.encoding_size import encoded_bytes
from crowd.planning.plan import Encoding

ENCODINGS = list(Encoding)
lengths = st.integers(0, 700)


def one(elements: int) -> Pieces:
    """All of them in one parameter."""
    return Pieces((elements,))


def there_and_back(vector: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    pieces = one(len(vector))
    return decode(encode(vector, encoding, pieces), encoding, pieces)


@st.composite
def vectors(draw: st.DrawFn) -> torch.Tensor:
    """Of any length, block by block of another magnitude."""
    values = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32)))).normal(size=draw(lengths))
    magnitudes = draw(st.lists(st.sampled_from([0.0, 1e-44, 1e-30, 1e-4, 1.0, 1e4]), min_size=3, max_size=3))
    return torch.from_numpy((values * np.repeat(magnitudes, 256)[: len(values)]).astype(np.float32))


@st.composite
def parts(draw: st.DrawFn) -> tuple[torch.Tensor, Pieces, list[tuple[int, int, bool]]]:
    """Some tensors in a row, each of another magnitude: the vector, how they lie in it, and of each `[start, stop)` and
    whether it is a statistic."""
    lengths = draw(st.lists(st.tuples(st.integers(1, 600), st.booleans()), max_size=5))
    random = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32))))
    spans, values, start = [], [np.zeros(0)], 0
    for length, is_statistic in lengths:
        values.append(random.normal(size=length) * 10.0 ** float(random.integers(-4, 4)))
        spans.append((start, start + length, is_statistic))
        start += length
    pieces = Pieces(
        tuple(stop - start for start, stop, is_statistic in spans if not is_statistic),
        tuple((start, stop) for start, stop, is_statistic in spans if is_statistic),
    )
    return torch.from_numpy(np.concatenate(values).astype(np.float32)), pieces, spans


@given(part=parts(), encoding=st.sampled_from(ENCODINGS))
def test_an_encoding_takes_the_bytes_that_plans_are_made_by_and_loses_what_it_says(
    part: tuple[torch.Tensor, Pieces, list[tuple[int, int, bool]]], encoding: Encoding
) -> None:
    vector, pieces, spans = part
    data = encode(vector, encoding, pieces)
    assert len(data) == encoded_bytes(encoding, *pieces.parameters, statistics=pieces.statistics_elements)
    decoded = decode(data, encoding, pieces)
    assert decoded.shape == vector.shape
    for start, stop, is_statistic in spans:
        error = float((decoded - vector)[start:stop].abs().max())
        lost = 0.0 if is_statistic and encoding is not Encoding.NONE else CODINGS[encoding].lost
        assert error <= lost * float(vector[start:stop].abs().max()) * 1.0001 + 2.0**-25


@given(vector=vectors())
def test_float32_loses_nothing(vector: torch.Tensor) -> None:
    assert torch.equal(there_and_back(vector, Encoding.FLOAT32), vector)


@given(vector=vectors())
def test_float16_is_the_nearest_half_precision_number(vector: torch.Tensor) -> None:
    expected = torch.from_numpy(vector.numpy().astype(np.float16).astype(np.float32))
    assert torch.equal(there_and_back(vector, Encoding.FLOAT16), expected)


@given(vector=vectors())
def test_blockwise8_is_off_by_at_most_half_a_step_of_its_block(vector: torch.Tensor) -> None:
    decoded = there_and_back(vector, Encoding.BLOCKWISE8)
    for start in range(0, len(vector), 256):
        block, error = vector[start : start + 256], (decoded - vector)[start : start + 256]
        largest = float(block.abs().max())
        # where the scale itself is subnormal, it has an absolute error, up to 127 times of which a code may add
        assert float(error.abs().max()) <= largest / 127 * 0.5001 + 127 * 1.5e-45


def test_float16_is_clamped_to_its_finite_range() -> None:
    decoded = there_and_back(torch.tensor([1e6, -1e6]), Encoding.FLOAT16)
    assert decoded.tolist() == [65504.0, -65504.0]


def test_blockwise8_writes_all_scales_and_then_all_codes_rounded_half_to_even() -> None:
    vector = torch.zeros(258)
    vector[:4] = torch.tensor([127.0, 0.5, 1.5, -2.5])
    vector[256:] = torch.tensor([-254.0, 2.0])
    data = encode(vector, Encoding.BLOCKWISE8, one(len(vector)))
    assert struct.unpack("<2f", data[:8]) == (1.0, 2.0)
    codes = np.frombuffer(data[8:], dtype=np.int8)
    assert codes[:5].tolist() == [127, 0, 2, -2, 0]
    assert codes[256:].tolist() == [-127, 1]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_delta_of_the_wrong_length_is_malformed(encoding: Encoding, change: int) -> None:
    data = encode(torch.ones(300), encoding, one(300))
    data = data[:-1] if change < 0 and data else data + b"\0"
    with pytest.raises(MalformedMessage, match="300 elements"):
        decode(data, encoding, one(300))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("encoding", "number"), [(Encoding.FLOAT32, "<f"), (Encoding.FLOAT16, "<e")])
def test_a_value_that_is_not_finite_is_malformed(encoding: Encoding, number: str, value: float) -> None:
    with pytest.raises(MalformedMessage, match="finite"):
        decode(struct.pack(number, value) + struct.pack(number, 1.0), encoding, one(2))


@pytest.mark.parametrize("scale", [math.nan, math.inf, -1.0, 3e38])
def test_a_scale_that_is_not_finite_or_leads_beyond_is_malformed(scale: float) -> None:
    with pytest.raises(MalformedMessage, match="scale"):
        decode(struct.pack("<f", scale) + b"\x80\x7f", Encoding.BLOCKWISE8, one(2))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_delta_that_is_not_finite_is_never_encoded(encoding: Encoding, value: float) -> None:
    with pytest.raises(TrainingDiverged):
        encode(torch.tensor([1.0, value]), encoding, one(2))


@given(data=st.binary(min_size=300 + 8, max_size=300 + 8))
def test_blockwise8_from_outside_is_either_refused_or_finite(data: bytes) -> None:
    try:
        decoded = decode(data, Encoding.BLOCKWISE8, one(300))
    except MalformedMessage:
        return
    assert bool(torch.isfinite(decoded).all())


@given(deltas=st.integers(0, 2**32), encoding=st.sampled_from(ENCODINGS), rounds=st.integers(1, 8))
def test_what_was_said_and_what_is_left_add_up_to_what_was_trained(
    deltas: int, encoding: Encoding, rounds: int
) -> None:
    generator = torch.Generator().manual_seed(deltas)
    trained, said, residual = torch.zeros(300, dtype=torch.float64), torch.zeros(300, dtype=torch.float64), None
    for _ in range(rounds):
        delta = torch.randn(300, generator=generator)
        before = delta.clone()
        data, residual = with_feedback(delta, torch.zeros(300) if residual is None else residual, encoding, one(300))
        assert torch.equal(delta, before)
        trained += delta
        said += decode(data, encoding, one(300))
    assert residual is not None
    assert torch.allclose(said + residual, trained, atol=1e-5)


def test_a_residual_is_carried_over_until_it_is_said() -> None:
    delta = torch.zeros(256)
    delta[0], delta[1] = 127.0, 0.4  # the second is less than half a step
    residual, said = torch.zeros(256), 0.0
    for _ in range(10):
        data, residual = with_feedback(delta, residual, Encoding.BLOCKWISE8, one(256))
        said += float(decode(data, Encoding.BLOCKWISE8, one(256))[1])
    assert said == 4.0


@given(part=parts(), encoding=st.sampled_from([Encoding.FLOAT16, Encoding.BLOCKWISE8]))
def test_each_tensor_is_decoded_as_if_it_had_been_sent_alone_and_statistics_exactly(
    part: tuple[torch.Tensor, Pieces, list[tuple[int, int, bool]]], encoding: Encoding
) -> None:
    vector, pieces, spans = part
    data = encode(vector, encoding, pieces)
    decoded = decode(data, encoding, pieces)
    for start, stop, is_statistic in spans:
        alone = vector[start:stop] if is_statistic else there_and_back(vector[start:stop], encoding)
        assert torch.equal(decoded[start:stop], alone)
    _, left = with_feedback(vector, torch.zeros(len(vector)), encoding, pieces)
    assert not any(left[start:stop].any() for start, stop, is_statistic in spans if is_statistic)


def test_a_tensor_s_small_elements_survive_beside_a_tensor_of_large_ones() -> None:
    vector, pieces = torch.cat([torch.full((10,), 1e-3), torch.full((10,), 1e3)]), Pieces((10, 10))
    decoded = decode(encode(vector, Encoding.BLOCKWISE8, pieces), Encoding.BLOCKWISE8, pieces)
    assert torch.allclose(decoded, vector)
    assert not there_and_back(vector, Encoding.BLOCKWISE8)[:10].any(), "as they would without borders"
