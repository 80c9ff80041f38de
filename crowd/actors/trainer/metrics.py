"""The metrics of a run on one device: time, samples and bytes."""

import attrs

from crowd.learning.replica import ReplicaState
from crowd.planning.phase import is_reached
from crowd.ports import Traffic
from crowd.protocol.messages import CurvePoint, MergedSlice, ResultMessage

CURVE_POINTS_MAX = 2000
"""Points of the longest curve, as a result must fit into one message."""


@attrs.define(kw_only=True)
class RunMetrics:
    """The counts of one device from the first plan with work on; times in microseconds of the node's clock."""

    began_us: int | None = None
    busy_us: int = 0
    samples_trained: int = 0
    generations: int = 0
    speed_kflops: int = 0
    _before: Traffic = attrs.field(factory=Traffic, init=False)
    _curve: list[CurvePoint] = attrs.field(factory=list, init=False)

    def begin(self, now_us: int, traffic: Traffic) -> None:
        """Start counting with the first active plan with work; later ones change nothing."""
        if self.began_us is None:
            self.began_us, self._before = now_us, traffic

    def round_done(self, number: int, first: MergedSlice, now_us: int, traffic: Traffic) -> CurvePoint:
        """Note that round `number` was completed with `first` as its slice 0; returns its point of the curve."""
        point = CurvePoint(
            round=number,
            elapsed_us=self._elapsed_us(now_us),
            value=first.value,
            evaluated=first.evaluated,
            loss=first.loss,
            bytes_up=traffic.up_bytes - self._before.up_bytes,
            bytes_down=traffic.down_bytes - self._before.down_bytes,
        )
        self._curve.append(point)
        return point

    def result(
        self, state: ReplicaState, kept: ReplicaState, now_us: int, traffic: Traffic, *, has_target: bool
    ) -> ResultMessage:
        """The result of a run that ended here in `state`, of which this device has `kept` its own version. A very long
        curve has only rounds that were evaluated, or every n-th of these; the last round among them."""
        values = [point.value for point in self._curve if point.evaluated]
        curve = self._curve
        if len(curve) > CURVE_POINTS_MAX:
            curve = [point for point in curve if point.evaluated or point is curve[-1]]
        every = len(curve) // CURVE_POINTS_MAX + 1
        return ResultMessage(
            progress=state.progress,
            reached=is_reached(state.streak) or not has_target,
            value=state.best.value if state.best is not None else values[-1] if values else None,
            elapsed_us=self._elapsed_us(now_us),
            busy_us=self.busy_us,
            bytes_up=traffic.up_bytes - self._before.up_bytes,
            bytes_down=traffic.down_bytes - self._before.down_bytes,
            samples_trained=self.samples_trained,
            speed_kflops=self.speed_kflops,
            generations=self.generations,
            model_digest=kept.digest,
            curve=tuple(reversed(curve[::-every])),
        )

    def _elapsed_us(self, now_us: int) -> int:
        return 0 if self.began_us is None else now_us - self.began_us
