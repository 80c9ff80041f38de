"""Where this machine trains, by what it is told and what it has."""

from collections.abc import Callable

import pytest
import torch

from crowd.errors import BadConfig
from crowd.ports import Device
from devices.torch_compute import auto, cpu, cuda, mps


@pytest.mark.parametrize(
    ("made", "found", "expected"),
    [
        (cpu, "cuda", "cpu"),
        (cpu, None, "cpu"),
        (cuda, "cuda", "cuda"),
        (mps, "mps", "mps"),
        (auto, "cuda", "cuda"),
        (auto, "mps", "mps"),
        (auto, "xpu", "cpu"),
        (auto, None, "cpu"),
    ],
)
def test_a_device_trains_where_it_is_told_to(
    made: Callable[[], Device], found: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", accelerator(found))
    assert made().compute.torch_device == expected


def accelerator(kind: str | None) -> Callable[..., torch.device | None]:
    """What torch says where there is such an accelerator; `None`: where there is none."""
    return lambda check_available: None if kind is None else torch.device(kind)


@pytest.mark.parametrize(("made", "found", "has"), [(cuda, None, "no accelerator"), (mps, "cuda", "cuda")])
def test_an_accelerator_that_is_not_there_is_asked_for_in_vain(
    made: Callable[[], Device], found: str | None, has: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", accelerator(found))
    with pytest.raises(BadConfig, match=f"this PyTorch has {has} here; install .* or set device = 'cpu'"):
        _ = made().compute.torch_device
