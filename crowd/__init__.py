"""Train a neural network together on the devices you already own, over the MQTT broker you already run.

`Node` runs this device inside your own asyncio application, `Task` describes the work; both come lazily, so that
`import crowd` loads no torch.
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
