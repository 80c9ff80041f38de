"""What is too long for one message, said in several."""

from collections.abc import Iterator

import attrs

from crowd.protocol.messages import Message, ViewReply

ENVELOPE_BYTES = 512
"""Bytes of the longest envelope around a payload."""


def in_pieces(message: Message, bytes_max: int) -> Iterator[Message]:
    """`message`, as several where its envelope would be longer than `bytes_max`: a view is told profile by profile. One
    that cannot be cut is left as it is."""
    match message:
        case ViewReply(envelopes=envelopes):
            room_bytes = bytes_max - ENVELOPE_BYTES
            piece: list[bytes] = []
            for envelope in envelopes:
                if piece and sum(map(len, piece)) + len(envelope) > room_bytes:
                    yield ViewReply(envelopes=tuple(piece), tombstones={}, suspended={})
                    piece = []
                piece.append(envelope)
            yield attrs.evolve(message, envelopes=tuple(piece))
        case _:
            yield message
