"""The manifest of a transfer: how bytes are cut into chunks, and how the offer names them."""

import hashlib
import math

from crowd.ports import MESSAGE_BYTES_MAX
from crowd.protocol.messages import Cargo, Offer
from crowd.units import DIGEST_BYTES, ceil_div

INLINE_BYTES_MAX = 48 << 10
"""Bytes of the longest transfer that travels inside its offer."""
CHUNK_BYTES = 256 << 10
"""Bytes of the largest chunk."""
CHUNK_BYTES_MIN = 32 << 10
"""Smaller ones would cost more in envelopes and digests than they save."""
OFFER_BYTES = 1024
"""Bytes of an offer in its envelope, but for its digests and its data."""

_DIGEST_BYTES = DIGEST_BYTES + 1
"""Bytes of a digest in CBOR."""


def chunk_bytes_for(rate_bytes_s: int, *, size_bytes: int, message_bytes_max: int) -> int:
    """Bytes of a chunk of `size_bytes` in all, for a link of this rate: none may take so much over a second that the
    receiver, whose other transfers share the link, would take it for lost; and neither a chunk nor the offer of all of
    them may be longer than `message_bytes_max`."""
    second_bytes = 1 << max(rate_bytes_s, 1).bit_length() - 1  # a power of two, like the limits
    digests_max = max(1, (message_bytes_max - OFFER_BYTES) // _DIGEST_BYTES)
    wanted_bytes = max(CHUNK_BYTES_MIN, second_bytes, ceil_div(size_bytes, digests_max))
    return min(wanted_bytes, CHUNK_BYTES, message_bytes_max)


def message_bytes_needed(size_bytes: int) -> int:
    """The longest message that must be possible for `size_bytes` to be offered and sent in chunks: the `m` with
    `OFFER_BYTES + digests · size / m = m`, rounded up."""
    half = OFFER_BYTES // 2
    return half + math.isqrt(half * half + _DIGEST_BYTES * size_bytes) + _DIGEST_BYTES + 1


def make_offer(
    transfer: str, cargo: Cargo, data: bytes, chunk_bytes: int, *, message_bytes_max: int = MESSAGE_BYTES_MAX
) -> Offer:
    """The offer of `data` in chunks of `chunk_bytes`; small data travels inline, as one chunk."""
    view = memoryview(data)
    inline = len(data) <= min(INLINE_BYTES_MAX, message_bytes_max - OFFER_BYTES - _DIGEST_BYTES)
    if inline:
        chunk_bytes = CHUNK_BYTES
    count = _count(len(data), chunk_bytes)
    return Offer(
        transfer=transfer,
        cargo=cargo,
        size_bytes=len(data),
        chunk_bytes=chunk_bytes,
        digests=tuple(_digest(view[n * chunk_bytes : (n + 1) * chunk_bytes]) for n in range(count)),
        inline=data if inline else b"",
    )


def is_inline(offer: Offer) -> bool:
    """Whether the offer carries all bytes itself."""
    return len(offer.inline) == offer.size_bytes


def is_sound(offer: Offer, size_bytes_max: int) -> bool:
    """Whether the offer is consistent and not too large; only then the functions below apply to it."""
    if not (0 <= offer.size_bytes <= size_bytes_max and 0 < offer.chunk_bytes <= CHUNK_BYTES):
        return False
    if len(offer.digests) != _count(offer.size_bytes, offer.chunk_bytes):
        return False
    if any(len(digest) != DIGEST_BYTES for digest in offer.digests):
        return False
    if is_inline(offer):
        return offer.size_bytes <= INLINE_BYTES_MAX and len(offer.digests) == 1 and is_chunk(offer, 0, offer.inline)
    return not offer.inline


def is_chunk(offer: Offer, index: int, data: bytes | memoryview) -> bool:
    """Whether `data` is chunk `index` of the offered bytes."""
    if not 0 <= index < len(offer.digests):
        return False
    start, stop = chunk_span(offer, index)
    return len(data) == stop - start and _digest(data) == offer.digests[index]


def chunk_span(offer: Offer, index: int) -> tuple[int, int]:
    """The range `[start, stop)` of a chunk among the offered bytes."""
    start = index * offer.chunk_bytes
    return start, min(start + offer.chunk_bytes, offer.size_bytes)


def _count(size_bytes: int, chunk_bytes: int) -> int:
    """Number of chunks; no bytes at all are one empty chunk."""
    return max(1, ceil_div(size_bytes, chunk_bytes))


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
