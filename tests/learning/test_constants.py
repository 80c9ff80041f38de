"""What training leaves as it is does not travel, so it must be the same on all devices."""

from typing import cast

import numpy as np
import pytest
import torch

from crowd.errors import BadConfig
from crowd.learning.work import prepare
from tests.learning.nets import CLASSES, FEATURES, make_task


class Projected(torch.nn.Module):
    """With random features that `generator` draws, else nobody knows who."""

    R: torch.Tensor

    def __init__(self, *, buffer: bool, generator: np.random.Generator | None = None) -> None:
        super().__init__()
        drawn = (generator or np.random.default_rng()).standard_normal((FEATURES, 4), dtype=np.float32)
        if buffer:
            self.register_buffer("R", torch.from_numpy(drawn))
        else:
            self.R = torch.from_numpy(drawn)
        self.head = torch.nn.Linear(4, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.head(torch.relu(inputs @ self.R)))


@pytest.mark.parametrize("buffer", [True, False])
def test_a_constant_that_is_another_whenever_it_is_made_is_refused(buffer: bool) -> None:
    complaint = "R of the network, which training leaves as it is, is another whenever the network is made"
    with pytest.raises(BadConfig, match=complaint):
        prepare(make_task(model=lambda: Projected(buffer=buffer)))


@pytest.mark.parametrize("buffer", [True, False])
def test_a_constant_is_the_same_on_all_devices_or_they_do_not_train_together(buffer: bool) -> None:
    def prepared(seed: int, scale: float = 1.0) -> bytes:
        def model() -> torch.nn.Module:
            network = Projected(buffer=buffer, generator=np.random.default_rng(seed))
            network.R *= scale
            return network

        return prepare(make_task(model=model)).facts.fingerprint

    assert prepared(1) == prepared(1) == prepared(1, scale=1 + 1e-7), "processors differ in last bits"
    assert prepared(1) != prepared(2)
    assert prepared(1) != prepared(1, scale=2.0)


def test_constants_that_torch_draws_are_alike_everywhere() -> None:
    class Drawn(Projected):
        def __init__(self) -> None:
            super().__init__(buffer=True)
            self.R = torch.randn(FEATURES, 4)

    torch.manual_seed(1)
    one = prepare(make_task(model=Drawn)).facts.fingerprint
    torch.manual_seed(2)
    assert one == prepare(make_task(model=Drawn)).facts.fingerprint
