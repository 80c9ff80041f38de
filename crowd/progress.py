"""What a node tells of its run: `Progress`."""

from collections.abc import Mapping

import attrs

from crowd.planning.plan import Plan


@attrs.frozen(kw_only=True)
class Progress:
    """The report of a node after each round, and when a plan begins or the run ends.

    Args:
        round: Number of the last complete round; 0 before the first.
        value: Value of the task's metric of the state before this round, over all devices that evaluated; `None` while
            nothing was evaluated. With a target the last one is that of the model that is kept; without one that has
            the best.
        loss: Mean training loss in this round, over all devices that trained; `None` where nobody has.
        bytes_up: Bytes that this device has sent in this run, headers included.
        bytes_down: Bytes that this device has received in this run, headers included.
        elapsed_s: Seconds since this device's first plan with work.
        plan: The plan in force: who trains, lends and merges what. `None` before the first.
        finished: Whether the run has ended with this round.
        digest: Digest of the state after this round, in hexadecimal; the same on every device. `None` before the first.
        samples_trained: Samples that this device has trained in this run, each as often as it did.
        generations: Plans that this device has followed by the end of this round.
        hardly_trained: By device, how many of its samples are planned to be trained and hardly were until now, less
            than a tenth of it, and why; `None`: not known, as this device has not seen enough of the run.
    """

    round: int
    value: float | None
    loss: float | None = None
    bytes_up: int
    bytes_down: int
    elapsed_s: float
    plan: Plan | None
    finished: bool = False
    digest: str | None = None
    samples_trained: int = 0
    generations: int = 0
    hardly_trained: Mapping[str, tuple[int, str]] | None = None
