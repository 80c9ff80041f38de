"""A task's data once more, while a node runs: `read_again`, and `check` of what was read."""

import torch

from crowd.errors import BadConfig
from crowd.learning.own_data import DataSet, digest_of
from crowd.learning.samples import SampleSet, materialise
from crowd.learning.task import Task
from crowd.learning.trial import made, try_out
from crowd.learning.work import Work
from crowd.user_code import blamed_on


def read_again(task: Task, work: Work, *, memory_bytes: int | None = None) -> DataSet | None:
    """Read the data of `task`, which was made anew; `None` if they are those of `work` that were read last. The
    evaluation set is not read again. Raises `BadConfig`, in one line, if they cannot be read, have another format, or
    are others at each reading."""
    before = work.own.latest
    common = before.evaluation if work.facts.evaluation_samples else None
    with blamed_on("the data cannot be read anew"):
        own = _read(task, before, common, memory_bytes)
        count, digest = len(own), digest_of(own)
        if digest == before.digest:
            return None
        del own  # or there would have to be room for two
        once_more = _read(task, before, common, memory_bytes)
        if len(once_more) == count and digest_of(once_more) != digest:
            raise BadConfig(
                "data are others whenever they are read, with nothing new in them: what is drawn at random belongs "
                "into Task(augment=…)"
            )
        return DataSet.of(once_more, common, task, before)


def _read(task: Task, before: DataSet, common: SampleSet | None, memory_bytes: int | None) -> SampleSet:
    return materialise(
        task.data,
        "data",
        like=before.store.format,
        other="the data set that was read before",
        memory_bytes=memory_bytes,
        copies=2 if common is None else 1,
    )


def check(task: Task, work: Work, found: DataSet) -> None:
    """Try the network on data that were read again. Raises `BadConfig`, in one line, if they do not fit."""
    sets = {"data": found.store.samples, "evaluation": found.evaluation}
    if not any(map(len, sets.values())):
        return  # nothing is left, which fits everything
    with torch.random.fork_rng(devices=[]):
        shown = try_out(task, made(task), sets, found.trial)
    numbers = work.quality.numbers
    if shown.metric_numbers != numbers:
        raise BadConfig(
            f"the metric {task.metric.name} has {shown.metric_numbers} sums of new data; expected {numbers}"
        )
