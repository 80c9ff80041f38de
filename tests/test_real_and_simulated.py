"""The simulation is worth its proofs only if it does what real devices do: one run of real `crowd node` processes over
a real Mosquitto is recorded, and simulated once more with what the devices had measured of themselves.

What is compared: for every process (a boot ID, the same in both worlds) the plans that it acked, by their digests, so
to the last bit: members with their lives, trainers, evaluation shares, assignments, idle samples, slices, form, planned
round time and reasons. The plans that a process held to for at least `HELD_S` in one world must be among those that it
acked in the other, in the same order, and this both ways. The last plan, on which all had agreed when the recording
ended, counts as held to.

What is not, and why. Generations may skip and views count revisions that planning does not read, so an ack that repeats
the plan before it is no other plan. A plan that held for a shorter time may be missing in the other world: there the
next change still fell into the debounce time, or a round ended a moment later. How many rounds there are differs, as
real devices share this machine's processor; no plan depends on it.
"""

import math
import time
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import attrs
import pytest

from crowd.config.node_file import read_node_config
from crowd.units import DeviceId
from tests.support.mosquitto import Mosquitto
from tests.support.processes import NAMES, Home
from tests.support.recording import Lifetime, Recording, listening
from tests.support.replay import replay

pytestmark = pytest.mark.alone

TASK = "tests.support.endless_digits:task"
FAST_LINKS = "uplink_mbps = 1000\ndownlink_mbps = 1000\n"
"""So that training together is worth it, even for a network this small."""
HELD_S = 1.0
"""Many rounds, and five rest times."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Mosquitto() as broker:
        home = Home(tmp_path_factory.mktemp("home"), broker, TASK, train=FAST_LINKS)
        try:
            yield home
        finally:
            home.close()


@pytest.fixture(scope="module")
def recorded(home: Home) -> Recording:
    """Three devices come one after the other and train; one is killed and returns."""

    def is_of_all(line: str) -> bool:
        return "plan_activated" in line and all(name in line for name in NAMES)

    with listening(home.broker.url, cluster="home") as recording:
        kitchen = home.start("kitchen", once=False)
        kitchen.wait_for(lambda line: "plan_activated" in line)
        cellar = home.start("cellar", once=False)
        cellar.wait_for(lambda line: "plan_activated" in line)
        attic = home.start("attic", once=False)
        kitchen.wait_for_round(20)
        recording.killed(DeviceId("kitchen"), at_s=time.monotonic())
        kitchen.kill()
        for process in (attic, cellar):
            process.wait_for(lambda line: "plan_activated" in line and "kitchen" not in line)
        returned = home.start("kitchen", once=False)
        for process in (attic, cellar, returned):
            process.wait_for(is_of_all)
    return recording


def simulated(recording: Recording, home: Home) -> Recording:
    return replay(recording, {name: read_node_config(home.directory / f"{name}.toml") for name in NAMES})


def acked_plans(lifetime: Lifetime, *, held_s: float = 0.0) -> list[str]:
    """The plans that were acked in this life and held for so long, each different from the one before."""
    acks = [(at_s, ack.plan_digest.hex()) for at_s, ack in lifetime.acks]
    turns = [next(same) for _, same in groupby(acks, key=itemgetter(1))]
    ends_s = [*(at_s for at_s, _ in turns[1:]), lifetime.killed_s or math.inf]
    held = [plan for (at_s, plan), end_s in zip(turns, ends_s, strict=True) if end_s - at_s >= held_s]
    return [plan for plan, _ in groupby(held)]


def differences(real: Recording, simulated: Recording) -> list[str]:
    """A line for each process whose plans differ."""
    lines = []
    for boot, lifetime in real.lifetimes.items():
        other = simulated.lifetimes[boot]
        if not (
            in_order(acked_plans(lifetime, held_s=HELD_S), acked_plans(other))
            and in_order(acked_plans(other, held_s=HELD_S), acked_plans(lifetime))
        ):
            lines.append(f"{lifetime.device}: really {acked_plans(lifetime)}, simulated {acked_plans(other)}")
    return lines


def in_order(some: list[str], all_of_them: list[str]) -> bool:
    """Whether `some` are among the others, in this order."""
    rest = iter(all_of_them)
    return all(plan in rest for plan in some)


def test_real_processes_and_their_simulation_ack_the_same_plans(home: Home, recorded: Recording) -> None:
    held = [len(acked_plans(lifetime, held_s=HELD_S)) for lifetime in recorded.lifetimes.values()]
    # kitchen, cellar and attic with each newcomer, the latter two without kitchen and with it again, kitchen then too
    assert all(count >= least for count, least in zip(held, (3, 4, 3, 1), strict=True)), held
    assert differences(recorded, simulated(recorded, home)) == []


def test_with_another_speed_than_the_recorded_one_the_plans_differ(home: Home, recorded: Recording) -> None:
    killed_s = next(iter(recorded.lifetimes.values())).killed_s
    assert killed_s is not None
    real, changed = recorded.until(killed_s), recorded.until(killed_s)
    fastest = max(changed.lifetimes.values(), key=lambda lifetime: lifetime.profiles[0][1].speed_kflops)
    fastest.profiles = [
        (at_s, attrs.evolve(profile, speed_kflops=profile.speed_kflops // 10)) for at_s, profile in fastest.profiles
    ]
    different = differences(real, simulated(changed, home))
    assert [line.partition(":")[0] for line in different] == ["kitchen", "cellar", "attic"]
