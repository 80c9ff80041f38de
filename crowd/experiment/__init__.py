"""One training of a cluster file, in simulation or in the lab; a device needs nothing of it.

Layout:
    experiment.py     what is asked, the port of a backend, what came of it
    balance.py        how evenly the work was spread over the processors
    metering.py       when a processor or a link was busy
    plan_summary.py   a plan without what differs from run to run
    node_files.py     the files of devices that are processes of one machine
    subprocesses.py   processes of this project that another one starts, listens to and ends
    message_lines.py  what parent and child processes say to each other, as lines of JSON
"""
