"""The comparison of policies: the same clusters, tasks and seeds for each, every run computed once and kept.

Layout:
    cells.py         one training of the comparison: its key, and what is kept of it
    source.py        the source that a result depends on, as a digest
    processor.py     what kind of processor this is
    matrix.py        computes cells side by side, each in a process of its own, and none twice
    activity.py      who was busy when
    runs.py          runs, as the JSON of `crowd bench` has them
    statistics.py    figures of which some are only lower bounds; regret
    report.py        the comparison's tables, on a screen and in Markdown
    page.py          the comparison as a page that needs nothing else
    page.html.jinja  the page's template
    pictures.py      the pictures in it
    about.py         what policies, clusters and tasks are, in the words of their own files
"""
