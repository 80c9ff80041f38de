"""The metrics of one device of a cluster over a run: `DeviceRecorder`."""

import math
from collections.abc import Callable

import anyio
import attrs

from crowd.config.cluster_file import DeviceConfig, DeviceKind
from crowd.experiment.balance import ComputeTrace
from crowd.experiment.metering import LinkBusy, Span
from crowd.ports import Traffic
from crowd.progress import Progress
from crowd.protocol.messages import ResultMessage
from crowd.run_record import DeviceMetrics, Point


class DeviceRecorder:
    """The counts of all lives of a device, from the cluster's first plan with work (`begin`): times to the end of the
    run here (`end`), or of the last life (`fail`); bytes until the metrics are asked for, as others may wait for them.

    Times by `clock` (default: anyio's), on which the cluster was switched on at 0 s.
    """

    def __init__(
        self,
        spec: DeviceConfig,
        kind: DeviceKind,
        *,
        traffic: Callable[[], Traffic],
        spans: Callable[[], tuple[Span, ...]],
        transfers: Callable[[], LinkBusy] | None = None,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        """Record nothing yet. `traffic`, `spans` and `transfers` (`None`: not known) return those of all lives so far,
        by the same clock."""
        self._clock = clock
        self.lives = tuple(zip((0.0, *spec.returns_at_s), (*spec.fails_at_s, math.inf), strict=False))
        """Beginning and end of each life, in seconds."""
        self.digest: str | None = None
        """Digest of the last state that counts, as long as the device holds it."""
        self._spec = spec
        self._kind = kind
        self._traffic = traffic
        self._spans = spans
        self._transfers = transfers
        self._began_s: float | None = None
        self._before = Traffic()
        self._end_s: float | None = None
        self._curve: dict[int, Point] = {}
        self._samples: list[int] = []
        self._generations: list[int] = []
        self._final_value: float | None = None

    # --- what happens -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._began_s, self._before = self._clock(), self._traffic()

    def new_life(self) -> None:
        self._end_s = None
        self._samples.append(0)
        self._generations.append(0)

    def round_done(self, progress: Progress) -> None:
        # a cluster that was switched off as a whole begins anew: what it had done is gone
        self._curve = {number: point for number, point in self._curve.items() if number < progress.round}
        self._curve[progress.round] = Point(
            round=progress.round,
            elapsed_s=self.elapsed_s,
            value=progress.value,
            loss=progress.loss,
            traffic_bytes=self.traffic_bytes,
        )
        self.digest = progress.digest
        self._samples[-1], self._generations[-1] = progress.samples_trained, progress.generations

    def run_over(self, result: ResultMessage) -> None:
        self.digest, self._final_value = result.model_digest.hex(), result.value
        self._samples[-1], self._generations[-1] = result.samples_trained, result.generations

    def end(self) -> None:
        """Stop the time, which does not count from now on, unless in another life."""
        self._end_s = self._clock() if self._end_s is None else self._end_s

    def fail(self) -> None:
        """End this life, and with it what the device knew."""
        self.end()
        self.digest = None

    # --- what came of it ----------------------------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return 0.0 if self._began_s is None else self._clock() - self._began_s

    @property
    def traffic_bytes(self) -> int:
        """Bytes over the device's link since the beginning, both directions."""
        now = self._traffic()
        return now.up_bytes + now.down_bytes - self._before.up_bytes - self._before.down_bytes

    def metrics(self) -> DeviceMetrics:
        traffic, end_s = self._traffic(), self._clock() if self._end_s is None else self._end_s
        began_s = end_s if self._began_s is None else min(self._began_s, end_s)
        return DeviceMetrics(
            elapsed_s=end_s - began_s,
            away_s=end_s - began_s - sum(_overlap(life, (began_s, end_s)) for life in self.lives),
            busy_s=sum(_overlap((span.began_s, span.ended_s), (began_s, end_s)) for span in self._spans()),
            bytes_up=max(0, traffic.up_bytes - self._before.up_bytes),
            bytes_down=max(0, traffic.down_bytes - self._before.down_bytes),
            samples_trained=sum(self._samples),
            generations=sum(self._generations),
            digest=self.digest,
            final_value=self._final_value,
            curve=tuple(point for _, point in sorted(self._curve.items())),
        )

    def trace(self) -> ComputeTrace:
        """The compute trace of the device, on the clock of the metrics."""
        began_s = self._began_s or 0.0
        spec = self._spec
        moments = {0.0, *(from_s for from_s, _ in spec.speed_schedule), *spec.fails_at_s, *spec.returns_at_s}
        return ComputeTrace(
            spans=tuple(
                attrs.evolve(span, began_s=span.began_s - began_s, ended_s=span.ended_s - began_s)
                for span in self._spans()
            ),
            speeds=tuple((moment - began_s, self._speed_at(moment)) for moment in sorted(moments)),
        )

    def transfers(self) -> LinkBusy | None:
        """The times at which the device's link was busy, on the clock of the metrics; `None` if not known."""
        return None if self._transfers is None else self._transfers().since(self._began_s or 0.0)

    def _speed_at(self, time_s: float) -> int:
        """The speed by the cluster file, in kFLOP/s; 0 while the device is switched off."""
        if not any(begins_s <= time_s < fails_s for begins_s, fails_s in self.lives):
            return 0
        factors = [factor for from_s, factor in self._spec.speed_schedule if from_s <= time_s]
        return speed_kflops(self._kind, factors[-1] if factors else 1.0)


def speed_kflops(kind: DeviceKind, factor: float) -> int:
    """The speed of a device of that kind, in kFLOP/s, at that factor of it."""
    return max(1, round(kind.speed_kflops * factor))


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
