"""`crowd bench`: all policies on the same clusters, tasks and seeds, in simulation.

Layout:
    command.py  the command
    screen.py   what it shows while it computes
"""
