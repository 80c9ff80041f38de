"""What a seed stands for: a cluster, its links, and everything that goes wrong with it, and when.

Layout: `FaultKind` and `Fault`, `DevicePart` (one device), `Scenario` (all of it), `draw` (from a seed).
"""

import enum
import random

import attrs

from brokers.simulated.network import FaultRates, LinkSpec
from crowd.planning.profile import Share
from crowd.units import MEBIBYTE


class FaultKind(enum.Enum):
    KILL = "kill"
    """The process dies; its connection breaks, so that the broker publishes the will at once."""
    POWER_LOSS = "power loss"
    """The device is gone, and the broker finds out only later."""
    BATTERY = "battery"
    """As a power loss, and back only when somebody charges it: in the healed cluster."""
    FREEZE = "freeze"
    """A closed lid: nothing runs, the clock goes on."""
    CUT = "cut"
    CUT_UP = "cut up"
    CUT_DOWN = "cut down"
    BROKER = "broker"
    """It crashes and forgets everything."""
    MUTE = "mute"
    """The device lives, but its promises never arrive."""
    SPEED = "speed"
    STALE_WILL = "stale will"
    WEATHER = "weather"
    """For a while messages are lost, doubled and held up."""
    OLD_DISK = "old disk"
    """The process dies, and starts again with what was on its disk some lives before, or with another device's."""
    REPLAY = "replay"
    """Somebody without a key says again what was said in former lives."""
    BLACKOUT = "blackout"
    """The power fails on all devices, and perhaps on the broker; they come back one after the other."""
    REQUEST = "request"
    """Somebody asks for the next run, on a device and perhaps on the one before it at the same moment."""
    GROW = "grow"
    """A device's data change: some come, and perhaps the first ones are gone; and somebody asks for the next run."""
    HANG = "hang"
    """No local step ends any more; all else that the device does goes on."""


@attrs.frozen(kw_only=True)
class Fault:
    at_s: float
    kind: FaultKind
    device: int
    lasts_s: float
    factor: float = 1.0
    """Of the speed; of a blackout, a request and data that change, what its further course is drawn from."""
    fault_rates: FaultRates = attrs.field(factory=FaultRates)
    """Of the weather."""


@attrs.frozen(kw_only=True)
class DevicePart:
    name: str
    speed_kflops: int
    memory_bytes: int
    link: LinkSpec
    share: Share
    starts_at_s: float


@attrs.frozen(kw_only=True)
class Scenario:
    seed: int
    devices: tuple[DevicePart, ...]
    policy: str
    host: int | None
    """Which device the broker runs on."""
    members_min: int
    queue_messages_max: int
    chunk_bytes: int | None
    """Of transfers, so that even small ones come in many pieces; `None`: as in production."""
    samples: int
    """Of each device."""
    normalises: bool
    """Whether the network has batch normalisation, and so statistics."""
    epochs_max: int
    target: float | None
    """Out of reach; `None`: the best state is kept."""
    patience: int | None
    """Evaluations without an improvement; without a target only."""
    checkpoint_s: float
    faults: tuple[Fault, ...]
    faults_until_s: float

    def only(self, faults: tuple[int, ...]) -> "Scenario":
        """The same with these of its faults, by their places."""
        return attrs.evolve(self, faults=tuple(self.faults[place] for place in faults))

    def varied(self, variant: int) -> "Scenario":
        """The same cluster with the same faults at times that differ by a fifth, and other chances."""
        chance = random.Random(variant)
        moved = [
            attrs.evolve(
                fault,
                at_s=max(0.1, fault.at_s * chance.uniform(0.8, 1.25)),
                lasts_s=fault.lasts_s * chance.uniform(0.8, 1.25),
            )
            for fault in self.faults
        ]
        faults = tuple(sorted(moved, key=lambda fault: fault.at_s))
        return attrs.evolve(self, seed=self.seed + 100_000 * variant, faults=faults)


WEATHERS = {
    "mild": FaultRates(lost=0.01, duplicated=0.01, held_up=0.02),
    "rough": FaultRates(lost=0.1, duplicated=0.1, held_up=0.1),
    "savage": FaultRates(lost=0.3, duplicated=0.2, held_up=0.3, held_up_s_max=3.0),
}
BASELINES = (
    "all_reduce",
    "all_reduce_balanced",
    "d_psgd",
    "diloco",
    "fedavg",
    "fedprox",
    "local_only",
    "ship_once",
)
"""Not those that train a sample more than once in an epoch, or merge without rounds that all complete: what is checked
here does not hold for them."""
KNOWN_SEEDS = 1000
"""Below, seeds are known to show something; there the policies and the kinds of faults are those with which they do."""
DRAWN_KINDS = tuple(
    kind for kind in FaultKind if kind.name not in ("BLACKOUT", "GROW", "HANG", "OLD_DISK", "REPLAY", "REQUEST")
)
HANGS_EVERY = 4
"""Of so many seeds one has a device that hangs, beside what else goes wrong with it."""
REPLAYS_EVERY = 4
"""Of so many seeds one has a device with an old disk, and former lives that are replayed twice."""
BLACKOUTS_EVERY = 3
"""Of so many seeds one has a power cut on all devices, twice, and checkpoints that are seconds apart."""
REQUESTS_EVERY = 3
"""Of so many seeds one has runs that follow each other, as somebody asks for them, and checkpoints as above."""
GROWTHS_EVERY = 6
"""Of so many seeds one has such runs over data that change."""
NO_TARGET_EVERY = 7
"""Of so many seeds one has a task without a target."""
FAULTS_UNTIL_S = 45.0
"""Later nothing goes wrong any more; ten times as late where rounds are long."""
LONG_ROUNDS = 10
"""How many times as long rounds are for some seeds."""


def draw(seed: int) -> Scenario:
    """The scenario of `seed`: 3 to 12 devices, at least 3 faults."""
    chance = random.Random(seed)
    count = chance.choice((3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 6, chance.randint(7, 12)))
    devices = tuple(_device(chance, index) for index in range(count))
    faults = [_fault(chance, count) for _ in range(chance.choice((3, 3, 4, 5, 6, 8, 12)))]
    faults.sort(key=lambda fault: fault.at_s)
    if seed >= KNOWN_SEEDS and seed % HANGS_EVERY == 2:
        faults.append(_hang(random.Random(f"hang {seed}"), count))
    if seed >= KNOWN_SEEDS and seed % REPLAYS_EVERY == 1:
        faults.extend(_replays(random.Random(f"replay {seed}"), count))
    lasting = seed >= KNOWN_SEEDS and seed % BLACKOUTS_EVERY == 1
    if lasting:
        faults.extend(_blackouts(random.Random(f"blackout {seed}"), count))
    following = seed >= KNOWN_SEEDS and (seed % REQUESTS_EVERY == 2 or seed % GROWTHS_EVERY == 0)
    if following and seed % REQUESTS_EVERY == 2:
        faults.extend(_requests(random.Random(f"request {seed}"), count))
    elif following:
        faults.extend(_growths(random.Random(f"grow {seed}"), count))
    longer = LONG_ROUNDS if seed >= KNOWN_SEEDS and seed % 32 == 3 else 1
    faults = [attrs.evolve(fault, at_s=longer * fault.at_s, lasts_s=longer * fault.lasts_s) for fault in faults]
    aimless = seed >= KNOWN_SEEDS and seed % NO_TARGET_EVERY == 1
    return Scenario(
        seed=seed,
        devices=devices,
        policy=_policy(seed, chance),
        host=chance.randrange(count) if chance.random() < 0.1 else None,
        members_min=chance.choice((1, 2, count)),
        queue_messages_max=chance.choice((1000, 1000, 100, 10)),
        chunk_bytes=chance.choice((None, None, None, 256)),
        samples=longer * chance.choice((6, 12, 24)),
        normalises=seed % 2 == 0,
        epochs_max=min(chance.choice((3, 20, 10_000)), 3 if following else 10_000),
        target=None if aimless else 1.0,
        patience=random.Random(f"patience {seed}").choice((None, 2, 10, 100)) if aimless else None,
        checkpoint_s=random.Random(f"checkpoint {seed}").choice((0.3, 2.0, 5.0)) if lasting or following else 60.0,
        faults=tuple(faults),
        faults_until_s=longer * FAULTS_UNTIL_S,
    )


def _policy(seed: int, chance: random.Random) -> str:
    policy = chance.choice(("crowd_learning", "crowd_learning", "crowd_learning", "fedavg", "ship_once"))
    return BASELINES[seed % len(BASELINES)] if policy == "ship_once" and seed >= KNOWN_SEEDS else policy


def _device(chance: random.Random, index: int) -> DevicePart:
    rate_bytes_s = chance.choice((25_000, 250_000, 1_250_000, 6_000_000))
    return DevicePart(
        name=f"d{index}",
        speed_kflops=chance.choice((3, 5, 8, 12, 20)),
        memory_bytes=chance.choice((128, 1024)) * MEBIBYTE,
        link=LinkSpec(
            uplink_bytes_s=rate_bytes_s,
            downlink_bytes_s=rate_bytes_s * chance.choice((1, 1, 4)),
            latency_s=chance.choice((0.0005, 0.003, 0.02, 0.1)),
            jitter_s=chance.choice((0.0, 0.005, 0.05)),
            half_duplex=chance.random() < 0.3,
            loss=chance.choice((0.0, 0.0, 0.01, 0.1)),
        ),
        share=chance.choice((Share.RAW, Share.RAW, Share.RAW, Share.FEATURES, Share.NEVER)),
        starts_at_s=chance.choice((0.0, 0.0, round(chance.uniform(0.0, 5.0), 3))),
    )


def _fault(chance: random.Random, count: int) -> Fault:
    kind = chance.choice(DRAWN_KINDS)
    return Fault(
        at_s=round(chance.uniform(1.0, FAULTS_UNTIL_S), 3),
        kind=kind,
        device=chance.randrange(count),
        lasts_s=chance.choice((0.3, 1.0, 3.0, 8.0, 20.0, 30.0)),
        factor=chance.choice((0.2, 0.5, 2.0, 4.0)) if kind is FaultKind.SPEED else 1.0,
        fault_rates=WEATHERS[chance.choice(tuple(WEATHERS))] if kind is FaultKind.WEATHER else FaultRates(),
    )


def _replays(chance: random.Random, count: int) -> tuple[Fault, ...]:
    kinds = (FaultKind.KILL, FaultKind.OLD_DISK, FaultKind.REPLAY, FaultKind.REPLAY)
    times = sorted(round(chance.uniform(1.0, FAULTS_UNTIL_S), 3) for _ in kinds)
    device = chance.randrange(count)
    return tuple(
        Fault(at_s=at_s, kind=kind, device=device, lasts_s=chance.choice((0.3, 1.0, 3.0)))
        for at_s, kind in zip(times, kinds, strict=True)
    )


def _blackouts(chance: random.Random, count: int) -> tuple[Fault, ...]:
    """With a chance the broker fails too, and each device's last checkpoint is damaged."""
    times = sorted(round(chance.uniform(5.0, FAULTS_UNTIL_S), 3) for _ in range(2))
    return tuple(
        Fault(
            at_s=at_s,
            kind=FaultKind.BLACKOUT,
            device=chance.randrange(count),
            lasts_s=chance.choice((0.3, 1.0, 3.0, 8.0)),
            factor=chance.random(),
        )
        for at_s in times
    )


def _requests(chance: random.Random, count: int) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            at_s=round(chance.uniform(8.0, FAULTS_UNTIL_S), 3),
            kind=FaultKind.REQUEST,
            device=chance.randrange(count),
            lasts_s=0.0,
            factor=chance.random(),
        )
        for _ in range(6)
    )


def _growths(chance: random.Random, count: int) -> tuple[Fault, ...]:
    return tuple(
        attrs.evolve(request, kind=FaultKind.GROW, lasts_s=chance.choice((0.0, 0.0, 0.5, 5.0)))
        for request in _requests(chance, count)
    )


def _hang(chance: random.Random, count: int) -> Fault:
    return Fault(
        at_s=round(chance.uniform(1.0, FAULTS_UNTIL_S), 3),
        kind=FaultKind.HANG,
        device=chance.randrange(count),
        lasts_s=chance.choice((3.0, 8.0, 20.0, 30.0)),
    )
