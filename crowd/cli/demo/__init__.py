"""`crowd demo`: a real network on real data, on emulated devices that differ 25-fold, three ways in turn.

Layout:
    command.py  the command
    setup.py    what is trained and where: the table of devices
    device.py   one emulated device, and what can be seen of it while it trains
    launch.py   all devices in this process, or each in a process of its own
    run.py      one policy's run as it is watched
    screen.py   the live view and the comparison at the end
"""
