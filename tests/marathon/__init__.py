"""A quarter of an hour of four real devices to which much is done: `python -m tests.marathon`, or `make marathon`.

| file | what is in it |
| --- | --- |
| `__main__.py` | the command |
| `play.py` | the run: the devices, the broker, and the clock by which things are done to them |
| `incidents.py` | what is done to them and when: one table |
| `outsider.py` | who is no device: junk, and the record of a former run, said again |
| `task.py` | what is trained: digits, at a rate of 0 until the run may end |
| `runs.py` | runs that follow each other, a command of its own: `make runs`; `growing.py` is what is trained |
| `cuts.py` | power cuts on all devices at once, a command of its own: `make cuts` |
| `verdict.py` | what must be true in the end, by logs and memory |
"""
