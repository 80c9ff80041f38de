"""Profiles for tests."""

from typing import Any

import attrs

from crowd.planning.profile import Module, Prefer, Profile, Share, TaskFacts
from crowd.units import DeviceId, Life


def task_facts(**changes: Any) -> TaskFacts:
    values: dict[str, Any] = {
        "fingerprint": b"same-task",
        "state_elements": 100_000,
        "statistics": 0,
        "flops_per_sample": 600_000,
        "sample_bytes": 65,
        "batch_size": 32,
        "evaluation_samples": 360,
        "epochs_max": 60,
    } | changes
    whole = Module("", values["state_elements"], values["flops_per_sample"], activation_bytes=40)
    return TaskFacts(**({"modules": (whole,)} | values))


def task_adding_up(*, modules: tuple[Module, ...], **values: Any) -> TaskFacts:
    """A task with such modules, none of whose numbers is too large in sum."""
    modules = tuple(
        attrs.evolve(module, elements=module.elements // 4, flops=module.flops // 4)
        for module in modules or (Module("", 4, 4, 4),)
    )
    values["state_elements"] = sum(module.elements for module in modules)
    values["flops_per_sample"] = sum(module.flops for module in modules)
    return TaskFacts(modules=modules, **values)


def make_profile(name: str, **changes: Any) -> Profile:
    values: dict[str, Any] = {
        "device": DeviceId(name),
        "life": Life(incarnation=1, boot=name.encode()),
        "revision": 0,
        "run": 1,
        "started": False,
        "members_min": 1,
        "policy": "test",
        "policy_version": 1,
        "protocol_version": 1,
        "prefer": Prefer.TIME,
        "seed": 0,
        "task": task_facts(),
        "speed_kflops": 1_000_000,
        "memory_bytes": 1 << 30,
        "uplink_bytes_s": 1_250_000,
        "downlink_bytes_s": 1_250_000,
        "link_assumed": True,
        "share": Share.RAW,
        "data_epoch": 0,
        "label_counts": (10, 10),
    }
    return Profile(**(values | changes))
