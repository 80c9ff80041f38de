"""How devices agree on one plan without a leader: a pure step from state and event to state and effects.

Layout:
    agreement.py  the step: views, evictions, promises, activation, heartbeats
    state.py      what one device knows and has promised; the protocol's times
    events.py     what happens to a device, and what it is to do about it
    view.py       all that a device knows of the others: a join-semilattice of profiles and tombstones
    ack.py        the promise to follow one plan, and how far a run has come
"""
