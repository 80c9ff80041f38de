"""The ServerApp: Flower's own FedAvg over all devices, until the target is met or the rounds are over."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from crowd.learning.ending import Goal, next_streak
from crowd.learning.quality import Quality, evaluate
from crowd.learning.samples import materialise
from crowd.learning.task import Task
from crowd.learning.work import prepare
from crowd.planning.phase import is_reached
from devices.lab.messages import Advanced, Working
from flower_peer.part import FLOPS, METRICS, SAMPLES, read_config, say, task_of

ROUND_S_MAX = 86_400.0
JOIN_POLL_S = 0.2

app = ServerApp()


class _Over(Exception):
    """The target is met: Flower's strategies know no reason to stop but the number of rounds."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    torch.set_num_threads(1)
    torch.manual_seed(int(str(config["seed"])))
    task = task_of(read_config(config))
    judge = _Judge(task, config)
    flops = prepare(task).facts.flops_per_sample
    devices = int(str(config["devices"]))
    while len(list(grid.get_node_ids())) < devices:
        time.sleep(JOIN_POLL_S)
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,  # the server evaluates
        min_train_nodes=devices,
        min_available_nodes=devices,
        train_metrics_aggr_fn=_all_of(devices),
    )
    say(config, Working(plan=None))
    try:
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(judge.model.state_dict()),
            num_rounds=int(str(config["rounds-max"])) or task.epochs_max,
            timeout=ROUND_S_MAX,
            train_config=ConfigRecord({FLOPS: flops}),
            evaluate_fn=judge,
        )
    except _Over:
        return


class _Judge:
    """Evaluates the global model on the common test set after each round, and tells of it."""

    def __init__(self, task: Task, config: Mapping[str, Any]) -> None:
        self.model = task.model()
        self._samples = materialise(task.evaluation, "evaluation")
        self._metric = task.metric
        self._goal = attrs.evolve(Goal.of(task), target=float(config["target"]))
        self._config = config
        self._streak = 0
        self._began_s = time.monotonic()

    def __call__(self, number: int, arrays: ArrayRecord) -> MetricRecord:
        """Raises `_Over` if the round of this `number`, 0 before the first, was the last."""
        self.model.load_state_dict(arrays.to_torch_state_dict())
        found = evaluate(self._metric, self.model, self._samples.inputs, self._samples.labels)
        label_elements = self._samples.format.label_elements
        quality = Quality(metric=self._metric, numbers=len(found.sums), label_elements=label_elements)
        value = quality.value(found)
        self._streak = next_streak(self._streak, value, found.samples, self._goal)
        if number:
            say(self._config, self._advanced(number, value))
        if is_reached(self._streak):
            raise _Over
        return MetricRecord({"value": 0.0 if value is None else value})

    def _advanced(self, number: int, value: float | None) -> Advanced:
        """What only the one who started the run can see is left empty."""
        return Advanced(
            round=number,
            value=value,
            loss=None,
            bytes_up=0,
            bytes_down=0,
            elapsed_s=time.monotonic() - self._began_s,
            finished=is_reached(self._streak),
            digest=None,
            samples_trained=0,
            generations=0,
        )


def _all_of(devices: int) -> Callable[[list[RecordDict], str], MetricRecord]:
    """FedAvg goes on without clients that failed; a comparison must not."""

    def count(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        if len(replies) < devices:
            raise RuntimeError(f"only {len(replies)} of {devices} devices have trained")
        samples = [record[weighted_by] for reply in replies if isinstance(record := reply[METRICS], MetricRecord)]
        return MetricRecord({SAMPLES: sum(int(str(count)) for count in samples)})

    return count
