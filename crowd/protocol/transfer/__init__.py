"""Bulk bytes from device to device: pure, so that what is to be sent comes back as effects.

Layout:
    transfers.py  all transfers from and to one device
    outgoing.py   the sending end
    incoming.py   the receiving end
    manifest.py   how bytes are cut into chunks, and how an offer names them
    effects.py    what a transfer asks of its caller
"""
