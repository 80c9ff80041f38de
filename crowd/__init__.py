"""Train a neural network together on the devices you already own, over the MQTT broker you already run.

`Node` runs this device inside your own asyncio application, `Task` describes the work; both come lazily, so that
`import crowd` loads no torch.

Layout:
    node.py         one device: its four actors under a supervisor, to be embedded in an application
    ports.py        what an adapter must promise: broker, signer, compute, sensor, store
    plugins.py      brokers, devices, policies, tasks and backends by name; tasks in the user's own files
    units.py        identifiers, lives, addresses, integer units
    errors.py       what can go wrong, by what the caller can do about it
    formatting.py   times and sizes for people
    logs.py         where a process of this project writes its log
    strict.py       from plain values to attrs values, with nothing converted
    whole_files.py  files that are replaced as a whole
    run_record.py   what happened in a run, as JSON
    config/         what people write: node.toml and cluster files
    runtime/        actors in general
    planning/       profiles, plans and what they cost: all that a policy needs
    agreement/      how devices agree on one plan without a leader
    protocol/       what goes over the wire
    learning/       torch arithmetic: local steps, encodings, merges, the replicated state
    actors/         the four actors of a device
    tasks/          built-in work
    experiment/     one training of a cluster file, in whatever backend; not needed on a device
    bench/          the comparison of policies; not needed on a device
    cli/            the `crowd` command
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crowd.config.node_file import NodeConfig as NodeConfig
    from crowd.learning.task import Task as Task
    from crowd.node import Node as Node

__version__ = "0.1.0"
__all__ = ["Node", "NodeConfig", "Task", "__version__"]

_LAZY = {"Node": "crowd.node", "NodeConfig": "crowd.config.node_file", "Task": "crowd.learning.task"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'crowd' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
