from crowd.actors.data_mover.pieces import in_pieces
from crowd.protocol.codec import Sealer
from crowd.protocol.identity import ephemeral_signers
from crowd.protocol.messages import Beat, ViewReply
from crowd.units import Address, Channel, Life, device_id

ANNA, BEN = device_id("anna"), device_id("ben")
LIFE = Life(incarnation=1, boot=bytes(16))
LIMIT = 8192


def test_a_view_that_is_too_long_for_one_message_is_told_in_several() -> None:
    profiles = tuple(bytes([number]) * 900 for number in range(30))
    pieces = list(in_pieces(ViewReply(envelopes=profiles, tombstones={BEN: LIFE}, suspended={}), LIMIT))
    sealer = Sealer("home", ANNA, LIFE, ephemeral_signers([ANNA])[ANNA])
    address = Address(channel=Channel.TO, source=ANNA, destination=BEN)
    assert all(len(sealer.seal(address, piece)) <= LIMIT for piece in pieces)
    assert len(pieces) == 4
    told = [piece for piece in pieces if isinstance(piece, ViewReply)]
    assert sum((piece.envelopes for piece in told), ()) == profiles
    assert [piece.tombstones for piece in told] == [{}, {}, {}, {BEN: LIFE}]


def test_what_fits_or_cannot_be_cut_is_one_message() -> None:
    small = ViewReply(envelopes=(b"one", b"two"), tombstones={BEN: LIFE}, suspended={})
    beat = Beat(life=LIFE, view_digest=bytes(16), generation=1)
    assert list(in_pieces(small, LIMIT)) == [small]
    assert list(in_pieces(beat, 1)) == [beat]
