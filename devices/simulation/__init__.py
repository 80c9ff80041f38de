"""A cluster file under virtual time: whole nodes and real arithmetic in one process.

Layout:
    backend.py       the backend: nodes on simulated processors and links
    virtual_time.py  an asyncio loop whose clock leaps to the next timer
"""
