"""What becomes of a contribution: `Fate`."""

import enum


class Fate(enum.Enum):
    """What an owner did with the contribution to its slice."""

    MERGED = "merged"
    MISSED = "missed"
    """It came too late, or not at all."""
    REFUSED = "refused"
    """It was out of all proportion, and would be more so with what comes next."""
