"""The descriptions of the comparison's rows, columns and tables, in the words of their own files."""

import inspect
import itertools
import sys
from pathlib import Path
from typing import Any

from crowd import plugins
from crowd.experiment.experiment import Experiment
from crowd.units import device_id


def about_policy(name: str) -> str:
    """The first paragraphs of a policy's module and of its class."""
    policy = plugins.policies.load(name)
    return " ".join(filter(None, (_first_paragraph(_module_text(policy)), _first_paragraph(inspect.getdoc(policy)))))


def about_task(name: str) -> str:
    """The first paragraph of a built-in task's module; empty for a task of the user's own."""
    return _first_paragraph(_module_text(plugins.tasks.load(name))) if ":" not in name else ""


def about_cluster(file: Path) -> str:
    """The comment at the head of a cluster file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return _first_paragraph("\n".join(line.lstrip("#").strip() for line in comment))


def about_devices(experiment: Experiment) -> list[str]:
    """A line for each kind of device: its devices, and their abilities."""
    alike: dict[str, list[str]] = {}
    for device in experiment.cluster.devices:
        kind = experiment.kinds[device_id(device.name)]
        radio = " on one channel" if kind.half_duplex else ""
        metrics = f"{kind.train_gflops:g} GFLOP/s, {kind.uplink_mbps:g} Mbit/s up, {kind.downlink_mbps:g} down{radio}"
        alike.setdefault(metrics, []).append(f"{device.name} (with the broker)" if device.broker else device.name)
    return [f"{', '.join(names)}: {metrics}" for metrics, names in alike.items()]


def _module_text(value: Any) -> str | None:
    module = sys.modules.get(getattr(value, "__module__", ""))
    return None if module is None else inspect.getdoc(module)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].replace("`", "").split())
