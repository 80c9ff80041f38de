"""The four actors of a device: each has private state and hears of the others by messages alone.

Layout:
    inbox.py     what the actors say to each other
    profiler.py  measures this device
    probe.py     what happens on a device, for whoever wants to check, count or show it
    advice.py    what people should know about a plan
    lives.py     the lives of this device, over all starts of its process
    planner/     feeds the agreement and carries out what it says
    trainer/     trains, merges, completes rounds
    data_mover/  all that leaves this device or comes to it
"""
