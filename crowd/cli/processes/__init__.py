"""Programs that commands start as processes of their own.

Layout:
    bench_cell.py   one cell of the comparison, for `crowd bench`
    demo_device.py  one emulated device, for `crowd demo --broker`
"""
