"""Nodes as processes, in a directory of their own: `NAMES`, `TASK`, `write_config`, `start`."""

import subprocess
import sys
from pathlib import Path

NAMES = ("anna", "ben")
COMMAND = "import sys; from crowd.cli.main import main; sys.exit(main())"
TASK = """
import torch
import crowd

def samples(count, width=4):
    inputs = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.TensorDataset(inputs, (inputs[:, 0] > 0).long())

def make(data, loss=torch.nn.functional.cross_entropy, target=0.9, model=lambda: torch.nn.Linear(4, 2)):
    return crowd.Task(
        model=model,
        data=data,
        evaluation=samples(64),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        loss=loss,
        batch_size=8,
        target=target,
        epochs_max=3,
    )

def easy(device):
    return make(samples(256), target=0.6)

def growing(device):  # by so many more as that file says
    import pathlib
    more = pathlib.Path("more")
    return make(samples(256 + (int(more.read_text()) if more.exists() else 0)), target=0.6)

def wide(device):  # of 56 kB
    model = lambda: torch.nn.Sequential(torch.nn.Linear(4, 2000), torch.nn.Linear(2000, 2))
    return make(samples(256), target=0.6, model=model)

def too_hard(device):
    return make(samples(64), target=1.0, loss=lambda output, labels: 0 * output.sum())

def empty(device):
    return make(samples(0))

def diverging(device):
    return make(samples(64), loss=lambda output, labels: output.sum() * float("nan"))

def wrong_shape(device):
    return make(samples(64, width=5))
"""


def write_config(
    here: Path,
    name: str,
    broker: str,
    *,
    task: str,
    members_min: int = 1,
    policy: str = "fedavg",
    node: str = "",
    share: str = "raw",
) -> Path:
    path = here / f"{name}.toml"
    path.write_text(
        f'[node]\nname = "{name}"\ncluster = "{here.name.strip("_").replace("_", "-")[:40].lower()}"\n'
        f'broker = "{broker}"\nkey_file = "{name}.key"\nmembers_file = "members.toml"\nstate_dir = "state-{name}"\n'
        f'{node}\n[train]\ntask = "{task}"\nmembers_min = {members_min}\npolicy = "{policy}"\n'
        f'share = "{share}"\n'
    )
    return path


def start(here: Path, config: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "node", "--config", str(config), *arguments],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
