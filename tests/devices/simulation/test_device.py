"""How somebody tests a policy, or a device's way through several lives, without a broker and without waiting: whole
nodes under virtual time."""

from collections.abc import Mapping

import anyio
import pytest

from crowd.actors.probe import Probe
from crowd.errors import BadConfig
from crowd.node import Node
from crowd.planning.plan import Assignment, Idle, Plan, SliceOwner, TrainerRole
from crowd.planning.policy import Cluster, Policy
from crowd.protocol.messages import ResultMessage
from crowd.units import SECOND_US, DeviceId, Life
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import PROCESS, run_virtually
from tests.node.cluster import blobs, round_of

TASK = blobs(100, target=1.0, epochs_max=10)


# --- a policy of one's own --------------------------------------------------------------------------------------------


class FastestAlone(Policy):
    """The fastest device trains its own samples, all others rest."""

    def plan(self, cluster: Cluster) -> Plan:
        fastest = max(cluster.members, key=lambda member: (member.speed_kflops, member.device))
        return Plan(
            members=(),
            trainers=(
                TrainerRole(
                    device=fastest.device,
                    round_samples=fastest.samples,
                    evaluation=(0, fastest.task.evaluation_samples),
                ),
            ),
            assignments=(Assignment(lender=fastest.device, trainer=fastest.device, counts=fastest.label_counts),),
            idle=tuple(
                Idle(device=member.device, counts=member.label_counts, reason="another device is faster")
                for member in cluster.members
                if member.device != fastest.device
            ),
            slices=(SliceOwner(owner=fastest.device, start=0, stop=fastest.task.state_elements),),
            samples_total=fastest.samples,
            round_us=SECOND_US,
            why=f"{fastest.device} is the fastest",
        )


def test_a_policy_of_ones_own_trains_a_cluster() -> None:
    cluster = SimulatedCluster({"ada": 100, "ben": 400}, TASK, policy="alone", policies={"alone": FastestAlone()})
    run_virtually(cluster.train)
    ada, ben = (cluster.devices[name].node for name in ("ada", "ben"))
    assert ada.digest == ben.digest is not None
    assert {name: result.samples_trained for name, result in ada.results.items()} == {"ada": 0, "ben": 1_000}
    assert ada.plan is not None
    assert ada.plan.why == "ben is the fastest"


def test_a_policy_that_nobody_has_given_is_missed() -> None:
    cluster = SimulatedCluster({"ada": 100}, TASK, policy="alone")
    with pytest.raises(BadConfig, match="alone"):
        run_virtually(cluster.devices["ada"].live)


# --- the life of a device ---------------------------------------------------------------------------------------------


def test_the_same_seed_takes_the_same_course_and_another_seed_another() -> None:
    def course(seed: int) -> tuple[Mapping[DeviceId, ResultMessage], list[Life]]:
        probe = Births()
        cluster = SimulatedCluster({"ada": 100, "ben": 400}, TASK, seed=seed, probes={"ada": probe})
        run_virtually(cluster.train)
        return cluster.devices["ada"].node.results, probe.lives

    first = course(1)
    assert first == course(1)
    for here, there in zip(first, course(2), strict=True):
        assert here != there


class Births(Probe):
    def __init__(self) -> None:
        self.lives: list[Life] = []

    def life_began(self, life: Life) -> None:
        self.lives.append(life)


def test_a_device_that_fails_comes_back_as_a_new_node_with_what_it_had_stored() -> None:
    probe = Births()
    cluster = SimulatedCluster({"ada": 400, "ben": 100}, blobs(100, epochs_max=60, target=1.0), probes={"ben": probe})
    ben = cluster.devices["ben"]

    async def fail_and_return() -> None:
        await round_of(cluster.devices["ada"].node, 3)
        ben.store.write("note", b"kept")
        first = ben.node
        cluster.fail("ben")
        await anyio.sleep(10)
        assert ben.node is first
        await cluster.train("ben")
        assert ben.node is not first

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cluster.train)
            await anyio.sleep(1)
            await fail_and_return()

    run_virtually(main)
    assert ben.lives == len(set(probe.lives)) == 2
    assert ben.store.read("note") == b"kept"
    assert cluster.devices["ada"].node.digest == ben.node.digest is not None


def test_what_happens_in_a_life_belongs_to_the_devices_process_and_nothing_after_it() -> None:
    cluster = SimulatedCluster({"ada": 400}, TASK)
    seen: list[tuple[str, DeviceId | None]] = []

    async def part(node: Node) -> None:
        seen.append((PROCESS.get(), node.name))

    async def main() -> None:
        await cluster.devices["ada"].live(part)
        seen.append((PROCESS.get(), None))

    run_virtually(main)
    assert seen == [("ada", DeviceId("ada")), ("", None)]


def test_a_device_without_a_part_stays_until_it_is_switched_off() -> None:
    cluster = SimulatedCluster({"ada": 400}, TASK)
    device = cluster.devices["ada"]

    async def main() -> float:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(device.live)
            await anyio.sleep(100)
            device.switch_off()
        return anyio.current_time()

    assert 100 <= run_virtually(main) < 101


def test_a_device_that_was_never_on_has_no_node() -> None:
    with pytest.raises(RuntimeError, match="ada has never been switched on"):
        _ = SimulatedCluster({"ada": 400}, TASK).devices["ada"].node
