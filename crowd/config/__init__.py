"""What people write in TOML, checked: every mistake is one line that names file, key and remedy.

Layout:
    node_file.py     a device's own file, node.toml
    cluster_file.py  a cluster file, for `sim`, `lab`, `plan` and `bench`
    data.py          how the data set of a built-in task is divided among devices
    toml.py          from TOML to attrs values, strictly
    validators.py    what values in files may be
    hints.py         "did you mean"
"""
