"""The methods that CrowdLearning is compared with, each a small policy on the same engine.

Layout:
    local_only.py           every device for itself
    ship_once.py            all data to the fastest device
    fedavg.py               federated averaging
    fedprox.py              the same, with what slow devices have done in time
    fedbuff.py              averaging without waiting
    diloco.py               many local steps, Nesterov outside
    all_reduce.py           a merge after every step
    all_reduce_balanced.py  the same, batches in proportion to speed
    mercury.py              the same, on the samples that need it most
    d_psgd.py               gossip on a ring
    d_psgd_random.py        gossip on a random graph
    own_data.py             what those share in which no sample moves
    topology.py             who gossips with whom
"""
