"""A run begins with a network that was trained elsewhere, which one device supplies."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from structlog.testing import capture_logs

from crowd.errors import BadConfig
from tests.node.cluster import Cluster, blobs, network
from tests.node.living import FEW, Living, weights
from tests.support.virtual import virtual_time


def saved_network(path: Path, seed: int, **changes: torch.Tensor) -> torch.nn.Module:
    trained = network(seed)
    safetensors.torch.save_file(trained.state_dict() | changes, path)
    return trained


@virtual_time
async def test_a_model_that_one_device_supplies_is_the_start_of_the_first_run(tmp_path: Path) -> None:
    supplied = saved_network(path := tmp_path / "elsewhere.safetensors", 77)
    rate0 = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    async with Living("ada", **(dict(FEW) | rate0)) as living:
        living.switch_on("ben", start=path)
        await living.over(1)
        expected = torch.cat([parameter.detach().reshape(-1) for parameter in supplied.parameters()])
        assert torch.equal(weights(living.cluster.nodes["ada"]), expected)
    assert living.starts.bases == [(1, 2)]


@virtual_time
async def test_a_model_that_is_supplied_too_late_is_not_used_and_said_to_be(tmp_path: Path) -> None:
    saved_network(path := tmp_path / "elsewhere.safetensors", 77)
    async with Living("ada", "ben") as living:
        before = await living.over(1)
        living.switch_off("ben")
        with capture_logs() as logs:
            living.switch_on("ben", start=path)
            assert await living.over(1) == before
    (line,) = [line for line in logs if line["event"] == "start_not_used"]
    assert line["file"] == str(path)


@virtual_time
async def test_a_model_that_a_new_device_supplies_to_a_run_that_others_have_begun_is_said_not_to_be_used(
    tmp_path: Path,
) -> None:
    saved_network(path := tmp_path / "elsewhere.safetensors", 77)
    async with Living("ada", "cy") as living:
        before = await living.over(1)
        with capture_logs() as logs:
            living.switch_on("ben", start=path)
            assert await living.over(1) == before
    (line,) = [line for line in logs if line["event"] == "start_not_used"]
    assert (line["file"], line["why"]) == (str(path), "run 1 has begun from another device's state")


@virtual_time
async def test_what_does_not_fit_the_network_is_said(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.safetensors"
    trained = network(77).state_dict()
    trained["2.weight"], trained["head"] = torch.zeros(5, 32), torch.zeros(2)
    safetensors.torch.save_file(trained, path)
    with capture_logs() as logs:
        async with Living("ada") as living:
            living.switch_on("ben", start=path)
            await living.over(1)
    (line,) = [line for line in logs if line["event"] == "start_fits_in_part"]
    assert (line["taken"], line["drawn"], line["not_in_the_network"]) == (3, "2.weight", "head")


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"weight": torch.zeros(3)}, "none of its tensors fits"),
        ({"0.weight": torch.full((32, 8), torch.nan)}, "0.weight is not finite"),
        (None, "no safetensors file that can be read"),
    ],
)
@virtual_time
async def test_a_file_that_is_of_no_use_ends_the_device_in_one_line(
    tmp_path: Path, tensors: dict[str, torch.Tensor] | None, complaint: str
) -> None:
    path = tmp_path / "elsewhere.safetensors"
    if tensors is None:
        path.write_bytes(b"no")
    else:
        safetensors.torch.save_file(tensors, path)
    node = Cluster("ada").add("ada", blobs(), start=path)
    with pytest.raises(BadConfig, match=complaint):
        async with node:
            pass
