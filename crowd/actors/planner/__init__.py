"""The actor that runs the agreement.

Layout:
    planner.py       the actor: every message, and the passing of time, is one step of the agreement
    decisions.py     the plans that follow from views
    hearing.py       what a message of another device means to it
    voice.py         what the agreement wants said to other devices
    results.py       whose results are known, and when the run is over
    runs.py          which run this device takes part in, and when the next begins
    timetable.py     when the next run is due by the clock
    notices.py       what people are told of other devices
    observations.py  what the planner tells the node's observers
"""
