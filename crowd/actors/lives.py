"""The lives of this device, over all starts of its process: `Lives`."""

import random

import structlog

from crowd.ports import Store
from crowd.units import Life

LIFE_FILE = "life"
BOOT_BYTES = 16
INCARNATION_MAX = 1 << 32
"""A greater one in the store is damage: lives must not run out."""

log = structlog.get_logger()


class Lives:
    """Draws lives that are later than all that this device has had before, as far as its store knows.

    The incarnation is in the store before the first word is said in it, so that recorded messages of a former life
    never outrank the present one. It is a hint: agreement needs no disk. With one that is lost, set back, cloned or
    broken, a device rises above its former lives once it hears of them.
    """

    def __init__(self, store: Store, chance: random.Random) -> None:
        self._store = store
        self._chance = chance
        self._latest = 0
        """The incarnation of the latest life, drawn here or before."""
        self._has_warned = False

    def begin(self) -> Life:
        """A new life, with a boot ID of its own; for every start of the actors. Writes to the store."""
        self.reach(max(self._latest, self._stored()) + 1)
        return Life(incarnation=self._latest, boot=self._chance.randbytes(BOOT_BYTES))

    def has_reached(self, incarnation: int) -> bool:
        """Whether this device is known to have come to this incarnation."""
        return incarnation <= self._latest

    def reach(self, incarnation: int) -> None:
        """Note that this device has come to this incarnation, before it says so. Writes to the store if it is new."""
        if self.has_reached(incarnation):
            return
        self._latest = incarnation
        try:
            self._store.write(LIFE_FILE, str(incarnation).encode())
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning("life_not_saved", error=str(error))

    def _stored(self) -> int:
        """The incarnation in the store; 0 where none can be read."""
        try:
            text = self._store.read(LIFE_FILE)
        except OSError as error:
            log.warning("life_not_read", error=str(error))
            return 0
        if text is None:
            return 0
        if text.isdigit() and len(text) <= 10 and int(text) < INCARNATION_MAX:
            return int(text)
        log.warning("life_not_read", error=f"{text[:20]!r} is no number of a life")
        return 0
