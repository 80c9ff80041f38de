"""A cluster's network under virtual time; not needed on a device.

Layout:
    network.py           links around a broker in memory, and all that can go wrong with them
    links.py             a link: rate, delay, half duplex
    partitions.py        who can reach the broker at this moment
    subscriber_queue.py  what waits at the broker for one subscriber, and what happens to it there
"""
