"""All that a device knows of the others: `View`, a join-semilattice of profiles, tombstones and suspensions.

A view keeps, per device, the newest profile, the last evicted life and the last suspension; merging is commutative,
associative and idempotent, so order, duplication and repetition of messages do not matter (Shapiro et al.,
Conflict-free replicated data types, 2011).
"""

import functools
import itertools
import operator
from collections.abc import Iterable, Mapping

import attrs

from crowd.agreement.suspension import Suspension
from crowd.planning.canonical import blake2b, canonical, canonical_array
from crowd.planning.profile import Profile
from crowd.units import DeviceId, Life


@attrs.frozen(kw_only=True)
class View:
    """Immutable; `merge` returns a new one. Equal `digest`s mean equal living profiles with the same among them
    suspended, and so equal plans."""

    profiles: Mapping[DeviceId, Profile] = attrs.field(factory=dict)
    """The newest profile of each device, whether it lives or not."""
    tombstones: Mapping[DeviceId, Life] = attrs.field(factory=dict)
    """The last evicted life of each device; that life and all before it are evicted."""
    suspensions: Mapping[DeviceId, Suspension] = attrs.field(factory=dict)
    """The last suspension of each device that was ever suspended."""

    def merge(
        self,
        profiles: Iterable[Profile] = (),
        tombstones: Mapping[DeviceId, Life] | None = None,
        suspensions: Mapping[DeviceId, Suspension] | None = None,
    ) -> "View":
        """The least view that contains this one and what is given; `self` if that adds nothing."""
        newer: dict[DeviceId, Profile] = {}
        for profile in profiles:
            known = newer.get(profile.device) or self.profiles.get(profile.device)
            if known is None or profile.version > known.version:
                newer[profile.device] = profile
        later = {
            device: life
            for device, life in (tombstones or {}).items()
            if device not in self.tombstones or life > self.tombstones[device]
        }
        greater = {
            device: suspension
            for device, suspension in (suspensions or {}).items()
            if device not in self.suspensions or suspension > self.suspensions[device]
        }
        if not newer and not later and not greater:
            return self
        return View(
            profiles={**self.profiles, **newer},
            tombstones={**self.tombstones, **later},
            suspensions={**self.suspensions, **greater},
        )

    def living_profile(self, device: DeviceId) -> Profile | None:
        """The newest profile of `device`, unless that life is evicted."""
        profile = self.profiles.get(device)
        return None if profile is None or self.is_evicted(device, profile.life) else profile

    def is_living(self, device: DeviceId) -> bool:
        """Whether `device` is known in a life that is not evicted."""
        return self.living_profile(device) is not None

    def is_evicted(self, device: DeviceId, life: Life) -> bool:
        """Whether this life of `device`, or a later one, is evicted."""
        last = self.tombstones.get(device)
        return last is not None and life <= last

    @functools.cached_property
    def living(self) -> tuple[Profile, ...]:
        """The newest profiles of the devices that are not evicted, by ID."""
        return tuple(map(self.profiles.__getitem__, self.ring))

    @functools.cached_property
    def ring(self) -> Mapping[DeviceId, int]:
        """The index of each living device in `living`, in that order."""
        dead = {device for device in self.tombstones if device in self.profiles and not self.is_living(device)}
        return dict(zip(sorted(self.profiles.keys() - dead), itertools.count()))

    @functools.cached_property
    def suspended(self) -> frozenset[DeviceId]:
        """The living devices to which no plan gives a part: what each of them was last heard to do stands still."""
        return frozenset(
            device
            for device, suspension in self.suspensions.items()
            if not suspension.lifted and device in self.ring and self.profiles[device].life == suspension.life
        )

    @property
    def started(self) -> bool:
        """Whether a living device has seen the latest run start."""
        return self._latest[1]

    @property
    def run(self) -> int:
        """The latest run of the living devices."""
        return self._latest[0]

    @functools.cached_property
    def _latest(self) -> tuple[int, bool]:
        return max(map(operator.attrgetter("run", "started"), self.living), default=(0, False))

    @functools.cached_property
    def digest(self) -> bytes:
        """Digest of the living profiles, and of who of them is suspended: tombstones of the departed do not keep two
        devices from agreeing."""
        items = [profile.canonical for profile in self.living]
        if self.suspended:
            items.append(canonical(sorted(self.suspended)))
        return blake2b(canonical_array(items))
