"""The common parts of the built-in tasks: the form of their data and their optimiser."""

from collections.abc import Iterable

import attrs
import torch
from torch.utils.data import TensorDataset

from crowd.tasks.partition import Partition, split


@attrs.frozen(kw_only=True, eq=False)
class LabelledSamples:
    """A labelled data set in memory. `inputs` (samples, …) as recorded; `labels` int64 (samples,); `subjects` int64
    (samples,): who each sample comes from, if that is known."""

    inputs: torch.Tensor
    labels: torch.Tensor
    subjects: torch.Tensor | None = None

    def dataset(self) -> TensorDataset:
        """All samples, as `(input, label)`."""
        return TensorDataset(self.inputs, self.labels)

    def part(self, partition: Partition) -> TensorDataset:
        """The samples of one device, as `(input, label)`. Raises `BadConfig` for parts by subject where subjects are
        not known."""
        subjects = None if self.subjects is None else self.subjects.numpy()
        indices = torch.from_numpy(split(self.labels.numpy(), partition, subjects))
        return TensorDataset(self.inputs[indices], self.labels[indices])


def sgd(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Stochastic gradient descent, learning rate 0.05, momentum 0.9."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
