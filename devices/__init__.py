"""What a node runs on: this machine, emulated ones, and the backends in which whole clusters run.

Layout:
    torch_compute.py  this machine
    sensors.py        free memory and processors
    cgroup_limits.py  the limits of a container or a service
    store.py          files in a directory, or in memory
    emulated.py       another device than this one, in real or virtual time
    catalog.py        kinds of devices by name
    catalog.toml      their figures, with sources
    cluster/          what the backends have in common; not needed on a device
    simulation/       a cluster file under virtual time; not needed on a device
    lab/              a cluster file as real processes on this machine; not needed on a device
    py.typed          says to type checkers that the annotations count
"""
