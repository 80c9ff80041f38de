"""The actor that owns the connection to the broker, and what it is made of.

Layout:
    data_mover.py  the actor: seals and publishes, runs the transfers
    shipments.py   what this device sends in bulk: what is under way, what waits, what is kept
    connection.py  the one session with the broker, opened again whenever it is lost; the outbox
    pieces.py      what is too long for one message, said in several
    budget.py      bounded work for what may be junk
    link_timer.py  how fast bytes come in
    intake.py      where everything that comes is opened and sent on its way
"""
