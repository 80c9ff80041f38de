"""Train a neural network together on the devices you already own, over the MQTT broker you already run.

What an application needs is here. `Node` runs this device inside your own asyncio application as its `NodeConfig` says,
`Task` describes the work and `metrics` how good it comes out, `Progress` and `Plan` tell how it goes, and what is
raised is a `CrowdError`. Each name comes when it is asked for, so that `import crowd` loads no torch.

Layout:
    node.py          one device: its four actors under a supervisor, to be embedded in an application
    crew.py          the four actors of a node under one supervisor
    progress.py      what a node tells of its run
    ports.py         what an adapter must promise: broker, signer, compute, sensor, store
    metrics.py       how good a state of the network is, in one number
    metric_facts.py  name, direction and form of the project's own metrics, without torch
    plugins.py       brokers, devices, policies, tasks and backends by name; tasks in the user's own files
    units.py         identifiers, lives, addresses, integer units
    errors.py        what can go wrong, by what the caller can do about it
    formatting.py    times and sizes for people
    logs.py          where a process of this project writes its log
    strict.py        from plain values to attrs values, with nothing converted
    user_code.py     what a user's own code raises, in one line
    whole_files.py   files that are replaced as a whole
    trained.py       the network that a run has trained or is training, in memory and in the store
    run_list.py      the runs that a device has taken part in, one card to a line
    model_card.py    what is known of a trained network, as JSON beside it
    run_record.py    what happened in a run, as JSON
    config/          what people write: node.toml and cluster files
    runtime/         actors in general
    planning/        profiles, plans and what they cost: all that a policy needs
    agreement/       how devices agree on one plan without a leader
    protocol/        what goes over the wire
    learning/        torch arithmetic: local steps, encodings, merges, the replicated state
    actors/          the four actors of a device
    tasks/           built-in work
    experiment/      one training of a cluster file, in whatever backend; not needed on a device
    bench/           the comparison of policies; not needed on a device
    cli/             the `crowd` command
    py.typed         says to type checkers that the annotations count
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crowd import metrics as metrics
    from crowd.config.node_file import NodeConfig as NodeConfig
    from crowd.errors import BadConfig as BadConfig
    from crowd.errors import BrokerLost as BrokerLost
    from crowd.errors import BrokerRefused as BrokerRefused
    from crowd.errors import CrowdError as CrowdError
    from crowd.errors import Rejected as Rejected
    from crowd.errors import Retryable as Retryable
    from crowd.errors import TrainingDiverged as TrainingDiverged
    from crowd.learning.task import Task as Task
    from crowd.node import Node as Node
    from crowd.planning.plan import Plan as Plan
    from crowd.plugins import make_task as make_task
    from crowd.progress import Progress as Progress
    from crowd.protocol.identity import ephemeral_signers as ephemeral_signers
    from crowd.units import DeviceId as DeviceId
    from crowd.units import device_id as device_id

__version__ = "0.1.0"

_LAZY = {
    "BadConfig": "crowd.errors",
    "BrokerLost": "crowd.errors",
    "BrokerRefused": "crowd.errors",
    "CrowdError": "crowd.errors",
    "DeviceId": "crowd.units",
    "Node": "crowd.node",
    "NodeConfig": "crowd.config.node_file",
    "Plan": "crowd.planning.plan",
    "Progress": "crowd.progress",
    "Rejected": "crowd.errors",
    "Retryable": "crowd.errors",
    "Task": "crowd.learning.task",
    "TrainingDiverged": "crowd.errors",
    "device_id": "crowd.units",
    "ephemeral_signers": "crowd.protocol.identity",
    "make_task": "crowd.plugins",
}

__all__ = [  # noqa: RUF022  # by what they are for
    "Node",
    "NodeConfig",
    "Task",
    "metrics",
    "make_task",
    "Progress",
    "Plan",
    "DeviceId",
    "device_id",
    "ephemeral_signers",
    "CrowdError",
    "Retryable",
    "BrokerLost",
    "Rejected",
    "BadConfig",
    "BrokerRefused",
    "TrainingDiverged",
    "__version__",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "metrics":
        return importlib.import_module("crowd.metrics")
    if name not in _LAZY:
        raise AttributeError(f"module 'crowd' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
