"""The images of `fashion` and a residual network with batch normalisation: much work, few bytes.

After ResNet-8 of MLPerf Tiny (Banbury et al., arXiv:2106.07597; He et al., arXiv:1512.03385), with half its channels.
"""

from torch import Tensor, nn

from crowd.learning.task import Task
from crowd.tasks import fashion
from crowd.tasks.partition import Partition
from crowd.tasks.recipe import sgd
from crowd.tasks.scale import Scale


def task(device: str, part: Partition) -> Task:
    """The deep task, with the images that `device` plays the owner of. Raises `BadConfig` if the data set is missing or
    damaged."""
    train, evaluation = fashion.small_samples()
    return Task(
        name="deep",
        model=network,
        data=train.part(part),
        evaluation=evaluation.dataset(),
        optimizer=sgd,
        target=0.87,
        epochs_max=30,
    )


def network() -> nn.Module:
    """The network: from (batch, 1, 28, 28) uint8 pixels to (batch, 10) float32 logits; 19,810 parameters and 336
    statistics."""
    return nn.Sequential(
        Scale(255.0),
        nn.Conv2d(1, 8, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Residual(8, 8, stride=1),
        Residual(8, 16, stride=2),
        Residual(16, 32, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),  # (batch, 32)
        nn.Linear(32, 10),
    )


class Residual(nn.Module):
    """Two convolutions beside a short cut: (batch, channels_in, height, width) to (batch, channels_out, height /
    stride, width / stride)."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.short_cut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.short_cut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """As the class says."""
        outputs: Tensor = nn.functional.relu(self.body(inputs) + self.short_cut(inputs))
        return outputs
