"""The run of a cluster file, in whatever backend.

Layout:
    cluster_run.py     all devices over all their lives, and when the run is over
    device_metrics.py  what one device did in it
"""
