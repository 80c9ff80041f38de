"""How many rounds Flower's FedAvg needs, by the seed: `python -m flower_peer.rounds CLUSTER TASK SEED...`, called in
the directory above with the Python of `make peers`. ServerApp and ClientApp are those of the lab, but all in this
process, one after the other: what processes and links cost in time is left out."""

import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from crowd.cli.experiments import read_experiment
from crowd.experiment.experiment import Experiment
from crowd.experiment.node_files import write_files
from devices.cluster.cluster_run import make_task, node_config
from devices.lab.messages import REPORTS, Advanced
from flower_peer import client, server
from flower_peer.part import KEEP, NEWS


class _HereGrid:
    """As much of a `Grid` as FedAvg asks for: each message goes to the ClientApp at once."""

    def __init__(self, contexts: dict[int, Context]) -> None:
        self._contexts = contexts

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [client.app(message, self._contexts[message.metadata.dst_node_id]) for message in messages]


def rounds(experiment: Experiment, *, keep: bool) -> list[Advanced]:
    """All rounds of one run to the task's own target."""
    names = [device.name for device in experiment.cluster.devices]
    with tempfile.TemporaryDirectory() as directory:
        configs = [node_config(experiment, index, broker="mqtt://nowhere") for index in range(len(names))]
        files = write_files(Path(directory), configs)
        news = Path(directory) / "news"
        config: UserConfig = {
            "file": str(files[names[0]]),
            "devices": len(names),
            "seed": experiment.seed,
            "target": make_task(experiment, 0).target or 0.0,
            "rounds-max": 0,
            KEEP: keep,
            NEWS: str(news),
        }
        clients = {number: _context(config, str(files[name])) for number, name in enumerate(names)}
        server.app(cast(Grid, _HereGrid(clients)), _context(config, ""))
        said = [REPORTS.from_line(line) for line in news.read_text(encoding="utf-8").splitlines()]
    return [line for line in said if isinstance(line, Advanced)]


def _context(config: UserConfig, file: str) -> Context:
    node_config: UserConfig = {"file": file, NEWS: config[NEWS]}
    return Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config=config)


def _trial(cluster: Path, task: str, seed: int) -> Experiment:
    return read_experiment(cluster, task=task, policy="fedavg", seed=seed, target=None, rounds_max=None)


def main(cluster: str, task: str, *seeds: str) -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # as of a process that Flower started
    logging.getLogger("flwr").setLevel(logging.ERROR)
    for keep, clients in ((True, "the clients' momentum kept"), (False, "a new optimiser in each round")):
        for seed in map(int, seeds):
            done = rounds(_trial(Path(cluster), task, seed), keep=keep)
            reached = "reached" if done[-1].finished else "not reached"
            print(
                f"{clients}, seed {seed}: {reached} after {len(done)} rounds, {done[-1].value or 0.0:.2%}", flush=True
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
