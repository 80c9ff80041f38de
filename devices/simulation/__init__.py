"""A cluster file under virtual time: whole nodes and real arithmetic in one process.

Layout:
    backend.py       the backend: nodes on simulated processors and links
    device.py        a simulated device and a simulated cluster, for anybody's tests
    virtual_time.py  an asyncio loop whose clock leaps to the next timer
"""
