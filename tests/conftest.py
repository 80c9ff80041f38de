"""What every test begins with."""

from collections.abc import Iterator

import pytest
import structlog
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        pytest.skip("there is no accelerator here")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Commands that run within a test set up logging to a terminal that ends with it."""
    yield
    structlog.reset_defaults()
