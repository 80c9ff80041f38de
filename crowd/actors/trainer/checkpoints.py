"""The checkpoints in a device's store, and when the next one is due: `Checkpoints`."""

from collections.abc import Iterator
from functools import partial
from typing import Self

import attrs
import structlog

from crowd.actors.trainer.checkpoint import Checkpoint, Damaged, OfAnother, Owner, from_bytes, to_bytes
from crowd.agreement.ack import StateProgress
from crowd.config.node_file import NodeConfig
from crowd.learning.layout import Layout
from crowd.learning.work import Work
from crowd.ports import Compute, Store
from crowd.runtime.clock import now_us
from crowd.units import SECOND_US

FILES = ("checkpoint/a", "checkpoint/b")
"""Written to in turn, so that there is always the one before."""
ASIDE = ".aside"
"""Appended to the name of one that cannot be used."""
BYTES_AN_HOUR_MAX = 1_000_000_000
"""SD cards wear out."""
TIME_SHARE_MAX = 0.01
"""Part of the time that may go into writing."""

log = structlog.get_logger()


@attrs.define(eq=False)
class Checkpoints:
    """Keeps this device's last two. A checkpoint that fails ends no run: another device's is enough."""

    store: Store
    owner: Owner
    layout: Layout
    counters_count: int
    every_us: int
    """Microseconds from one to the next, at least."""
    saved: StateProgress | None = None
    """How far the latest one has come that is in the store, as far as that has been read."""
    _found: Checkpoint | None = None
    _next: int = 0
    """Index of the file that is written next."""
    _due_us: int | None = None
    _has_warned: bool = False

    @classmethod
    def of(cls, config: NodeConfig, work: Work, store: Store) -> Self:
        """Those of the device with this configuration and work. Nothing is read yet."""
        return cls(
            store=store,
            owner=Owner(cluster=config.cluster, fingerprint=work.facts.fingerprint),
            layout=work.layout,
            counters_count=work.counters,
            every_us=int(config.checkpoint_s * SECOND_US),
        )

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Look for the latest in the store; what cannot be used is said, and kept aside. For a worker thread."""
        found = list(self._usable())
        if found:
            latest, self._found = max(found, key=lambda item: item[1].state.progress)
            self.saved = self._found.state.progress
            self._next = 1 - latest

    def take(self) -> Checkpoint | None:
        """The latest in the store, if there is one. For a worker thread."""
        if self._found is None:
            self.read()
        found, self._found = self._found, None
        return found

    def _usable(self) -> Iterator[tuple[int, Checkpoint]]:
        for index, name in enumerate(FILES):
            try:
                data = self.store.read(name)
                if data is not None:
                    yield index, from_bytes(data, self.owner, self.layout, self.counters_count)
            except OSError as error:
                log.warning("checkpoint_not_read", file=name, error=str(error))
            except (Damaged, OfAnother) as error:
                self._keep_aside(name, str(error))

    def _keep_aside(self, name: str, why: str) -> None:
        kept_as = name + ASIDE
        try:
            self.store.move(name, kept_as)
        except OSError as error:
            kept_as = f"nothing, as it cannot be moved: {error}"
        log.warning("checkpoint_not_used", file=name, error=why, kept_as=kept_as)

    # --- writing ------------------------------------------------------------------------------------------------------

    def is_due(self, progress: StateProgress) -> bool:
        """Whether a state that has come so far is to be saved now: after a while, at the end of a run, and when the
        next one has begun, so that a power cut does not lose that somebody wanted it."""
        if self._due_us is None:
            self._due_us = now_us() + self.every_us
        follows = self.saved is not None and self.saved.run < progress.run
        return progress.finished or follows or now_us() >= self._due_us

    async def save(self, checkpoint: Checkpoint, compute: Compute) -> bool:
        """Write it, and say whether that worked; what fails is warned of once, until it works again."""
        began_us = now_us()
        self._due_us = began_us + self.every_us  # nobody else writes meanwhile
        try:
            size_bytes = await compute.run_aside(partial(self._write, checkpoint))
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning("checkpoint_not_saved", error=str(error), hint="the run goes on without")
            return False
        self._has_warned = False
        progress = self.saved = checkpoint.state.progress
        took_us = now_us() - began_us
        pause_us = max(self.every_us, int(took_us / TIME_SHARE_MAX), size_bytes * 3600 * SECOND_US // BYTES_AN_HOUR_MAX)
        self._due_us = began_us + pause_us
        log.info(
            "checkpoint_saved",
            run=progress.run,
            round=progress.round,
            digest=progress.digest.hex()[:8],
            again_s=round(pause_us / SECOND_US, 1),
        )
        return True

    def _write(self, checkpoint: Checkpoint) -> int:
        data = to_bytes(checkpoint, self.owner)
        self.store.write(FILES[self._next], data)
        self._next = 1 - self._next  # here, as one may be written while the next is asked for
        return len(data)
