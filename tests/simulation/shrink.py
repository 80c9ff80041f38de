"""From a scenario that fails to the smallest set of its faults that still does."""

from collections.abc import Callable


def smallest(places: tuple[int, ...], fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """A subset of `places` that `fails`, of which no single one can be left out (Zeller and Hildebrandt 2002, ddmin).
    `fails` must be true for all of them."""
    parts = 2
    while len(places) >= 2:
        size = -(-len(places) // parts)
        chunks = [places[start : start + size] for start in range(0, len(places), size)]
        candidates = [*chunks, *(tuple(place for place in places if place not in chunk) for chunk in chunks)]
        found = next((kept for kept in candidates if len(kept) < len(places) and fails(kept)), None)
        if found is not None:
            places, parts = found, 2
        elif parts >= len(places):
            break
        else:
            parts = min(len(places), 2 * parts)
    return () if len(places) == 1 and fails(()) else places
