"""The `crowd` command: each subcommand is a file or folder of its own, imported only when it is called.

Layout:
    main.py         subcommands and exit codes
    node.py         `crowd node`
    keys.py         `crowd keys`
    train.py        `crowd train`
    runs.py         `crowd runs`
    asked.py        how `crowd train` reaches the node that runs
    new_data.py     whether the device's data have changed, looked at between runs
    export.py       `crowd export`
    plan.py         `crowd plan`
    sim.py          `crowd sim`
    lab.py          `crowd lab`
    demo/           `crowd demo`
    bench/          `crowd bench`
    processes/      programs that commands start as processes of their own
    cluster.py      from a cluster file to the profiles that its devices would publish
    experiments.py  what the commands that train a cluster file share
    files.py        what commands write for programs
    preflight.py    what can be said of a node before torch is loaded
    waiting.py      why a node waits, in one line
    saving.py       a model that cannot be saved where it should
    live_view.py    a view that is drawn anew on a terminal
    terminal.py     a run in one line, and the colours of bars
    signals.py      Ctrl-C and SIGTERM as a clean end
"""
