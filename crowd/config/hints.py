"""Help for whoever mistyped a word: `did_you_mean`."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown `word`: the known one most like it, else all of them."""
    known = sorted(known)
    similar = difflib.get_close_matches(word, known, n=1)
    if similar:
        return f"did you mean {similar[0]!r}?"
    return f"known are {', '.join(map(repr, known))}" if known else "none is known"
