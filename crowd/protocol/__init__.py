"""What goes over the wire: messages, their signed envelopes, and transfers of bulk bytes.

Layout:
    messages.py  everything that devices say to each other
    tagged.py    the tag of a message, and whom it is for: what its class declares
    codec.py     between bytes and messages; the only place where anything from outside is decoded
    envelope.py  the signed envelope around each
    strict.py    CBOR at its strictest
    identity.py  keys and members
    transfer/    bulk bytes: windowed, acknowledged, pulled by the receiver
"""
