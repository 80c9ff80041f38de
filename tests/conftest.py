"""What every test begins with."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Commands that run within a test set up logging to a terminal that ends with it."""
    yield
    structlog.reset_defaults()
