"""A cluster file as real processes on this machine: namespaces, control groups, a real Mosquitto.

Layout:
    backend.py         the backend: what fits this machine, and how a cluster is slowed until it does
    cluster_run.py     a run of the lab, whatever program the devices run
    node_cluster.py    one whose devices run nodes
    worker.py          one device as a process of its own
    worker_process.py  that process as its lab has it
    messages.py        what the two say to each other
    mosquitto.py       the broker
    netns.py           network namespaces, joined by links of limited rate
    cgroups.py         limits on processor time and memory
    slowed_time.py     a clock in slow motion
    sandbox.py         the place in which a lab works, and how nothing of it stays behind
    programs.py        where the programs are that it calls
"""
