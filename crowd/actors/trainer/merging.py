"""An owner's side of the round being merged: `Merging`."""

from collections.abc import Sequence
from functools import partial

import structlog
import torch

from crowd.actors.trainer.effects import Effect, Merge
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.own_slices import evaluation_of
from crowd.actors.trainer.published_slice import PublishedSlice
from crowd.actors.trainer.rounds import Rounds
from crowd.agreement.state import Active
from crowd.errors import MalformedMessage
from crowd.learning.encoding import decode
from crowd.learning.outliers import Outliers
from crowd.learning.work import Work
from crowd.planning.plan import Encoding, SliceOwner
from crowd.protocol.messages import Contribution, MergedSlice
from crowd.runtime.clock import now_us
from crowd.units import DeviceId

log = structlog.get_logger()


class Merging:
    """Takes what trainers contribute to the slices that this device owns, and publishes their means. `Rounds` says
    what is taken, and when a slice is merged."""

    def __init__(self, work: Work, outside: Outside, rounds: Rounds) -> None:
        self._layout = work.layout
        self._quality = work.quality
        self._outside = outside
        self._rounds = rounds
        self._outliers = Outliers()
        self._slices: dict[SliceOwner, PublishedSlice] = {}

    def begin_run(self) -> None:
        self._outliers = Outliers()

    def begin_plan(self) -> None:
        """Forget what was not said of merged slices, as the slices are others now."""
        self._slices = {}

    async def hand_in(self, owner: DeviceId, header: Contribution, data: bytes) -> Sequence[Effect]:
        """Give a contribution of this device to the slice's owner, perhaps this device itself."""
        if owner == self._outside.device:
            return await self.take(owner, header, data)
        await self._outside.send(owner, header, data)
        return ()

    async def take(self, sender: DeviceId, header: Contribution, data: bytes) -> Sequence[Effect]:
        """Take what a trainer, this device included, sends of its delta, or a member's evaluation."""
        active, key = self._rounds.active, header.key
        if active is None:
            return ()
        try:
            self._quality.check(sender, evaluation_of(header))
            if active.plan.trainer(sender) is None:
                return self._rounds.evaluated(sender, header, now_us())
            if not self._rounds.is_mine(key):
                return ()
            span = self._rounds.span(key)
            assert span is not None
            if key.round == self._rounds.in_hand:
                self._rounds.round_plan.check_encoding(header.encoding)
            delta = await self._outside.compute.run(partial(self._decoded, data, header.encoding, span))
            return self._rounds.contribute(sender, header, delta, now_us())
        except MalformedMessage as error:
            log.warning("contribution_refused", sender=sender, error=str(error))
            return ()

    def _decoded(self, data: bytes, encoding: Encoding, span: SliceOwner) -> torch.Tensor:
        """The delta of a slice, (stop - start,) float32. Raises `MalformedMessage`."""
        return decode(data, encoding, self._layout.pieces(span.start, span.stop))

    async def merge(self, due: Merge) -> Sequence[Effect]:
        """Average a slice, encode it with what earlier encodings lost, and publish it once, for everybody to apply."""
        active = self._rounds.active
        assert active is not None
        round_plan = self._rounds.round_plan
        span, encoding = round_plan.slices[due.key.index], round_plan.encoding
        published = self._published(span)

        def work() -> tuple[MergedSlice, bytes]:
            pieces = self._layout.pieces(span.start, span.stop)
            return published.merged(due, pieces, encoding, self._outliers, self._quality)

        header, data = await self._outside.compute.run(work)
        self._outside.probe.merged(round_plan, header, data)
        await self._tell(active, header, data, published=round_plan.published)
        return self._rounds.merged(self._outside.device, header, data, now_us())

    def _published(self, span: SliceOwner) -> PublishedSlice:
        return self._slices.setdefault(span, PublishedSlice(span.stop - span.start))

    async def _tell(self, active: Active, header: MergedSlice, data: bytes, *, published: bool) -> None:
        """Publish a merged slice to all that follow the rounds: nobody does where this device is alone, or where
        whoever needs a state asks for it."""
        if len(active.plan.members) > 1 and published:
            await self._outside.send(None, header, data)
