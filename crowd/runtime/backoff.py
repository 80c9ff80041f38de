"""How long to wait before what failed is tried again: `backoff_s`."""

import random

BACKOFF_FIRST_S = 0.5
DOUBLINGS_MAX = 16


def backoff_s(failures: int, *, max_s: float, chance: random.Random) -> float:
    """The pause after `failures` failures before the one just now: `BACKOFF_FIRST_S`, doubled for each of them, `max_s`
    at most, and up to half less by `chance`, so that many do not try at once. In seconds."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(failures, DOUBLINGS_MAX), max_s) * chance.uniform(0.5, 1.0)
