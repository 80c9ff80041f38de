"""How devices agree on a plan without a leader: a pure function of state and event (docs/protocol.md).

Layout:
    ack.py                what a device says of a plan: its ack, and how far its replica has come
    suspension.py         who lives but stands still, and what is remembered of that
    view.py               profiles, tombstones and suspensions of all devices, a join-semilattice
    state.py              what one device knows, in records; the protocol's times
    events.py             what happens to a device (events), and what it is to do about it (effects)
    turn.py               one step in progress: its state, its effects, and messages that may be repeated
    predicates.py         questions about a state that several rules ask
    views.py              own lives and profiles, and what is learned of others
    failure_detector.py   suspicion, probes and evictions
    stalls.py             who holds up the others is suspended until it goes on
    acks.py               acks given and heard, and the plan that they activate
    heartbeats.py         heartbeats sent and heard
    step.py               the way in: `step`, `note`, `note_beat`, `next_deadline_us`
"""
