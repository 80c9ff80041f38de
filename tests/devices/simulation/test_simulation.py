"""Whole clusters under virtual time: three small devices and a few rounds each."""

import itertools
import math
import random
import statistics
from typing import Any

import attrs
import pytest
import torch
from structlog.testing import capture_logs

from brokers.simulated.network import Network
from crowd import plugins
from crowd.config.cluster_file import ClusterConfig, DeviceConfig
from crowd.config.data import PartitionConfig
from crowd.errors import BadConfig
from crowd.experiment.experiment import Experiment, ExperimentResult, RoundReport, part_of, record
from crowd.learning.task import Task
from crowd.planning.profile import Share
from crowd.ports import Delivery
from crowd.units import DeviceId, device_id
from devices.simulation import backend
from devices.simulation.backend import Simulation
from tests.node.cluster import blobs

NAMES = ("fast", "middle", "slow")
SPEEDS_GFLOPS = {"fast": 0.4, "middle": 0.2, "slow": 0.1}
STATE_BYTES = 4 * 99_530
"""Of `digits`."""
COSTS = ("MESSAGE_S", "MESSAGE_BYTE_S", "OVERHEAD_S")
"""What a simulated node does beside its training."""


def devices(**changes: dict[str, Any]) -> tuple[DeviceConfig, ...]:
    """The three devices; `changes` are of those that are named."""
    common: dict[str, Any] = {"memory_mib": 512, "uplink_mbps": 20.0, "downlink_mbps": 20.0}
    return tuple(
        DeviceConfig(**(common | {"name": name, "train_gflops": SPEEDS_GFLOPS[name]} | changes.get(name, {})))
        for name in NAMES
    )


def experiment(
    *of: DeviceConfig, task: str = "digits", policy: str = "fedavg", rounds_max: int | None = 3, **values: Any
) -> Experiment:
    cluster = ClusterConfig(name="home", data=PartitionConfig(), devices=of or devices())
    kinds = {device_id(device.name): device.resolve({}) for device in cluster.devices}
    plain = Experiment(cluster=cluster, kinds=kinds, task=task, policy=policy, seed=1, rounds_max=rounds_max)
    return attrs.evolve(plain, **values)


def run(*of: DeviceConfig, **values: Any) -> ExperimentResult:
    return Simulation().run(experiment(*of, **values), lambda point: None)


def end_s(outcome: ExperimentResult) -> float:
    return max(metrics.elapsed_s for metrics in outcome.devices.values())


def traffic_bytes(outcome: ExperimentResult) -> int:
    return sum(metrics.bytes_up + metrics.bytes_down for metrics in outcome.devices.values())


def digests(outcome: ExperimentResult) -> list[str | None]:
    return [outcome.devices[name].digest for name in NAMES]


def small(device: str) -> Task:
    """A task of one's own: two blobs, told apart within a few rounds."""
    return blobs()(device)


def nothing(device: str) -> Task:
    return attrs.evolve(blobs()(device), data=torch.utils.data.TensorDataset(torch.zeros(0, 8), torch.zeros(0).long()))


SMALL = f"{__name__}:small"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[DeviceId, Delivery]]:
    """Everything that any device publishes."""
    heard: list[tuple[DeviceId, Delivery]] = []

    class Watched(Network):
        def saw(self, device: DeviceId, delivery: Delivery) -> None:
            heard.append((device, delivery))

    monkeypatch.setattr(backend, "Network", Watched)
    return heard


# --- one course for one seed ------------------------------------------------------------------------------------------


def test_the_same_trial_has_the_same_outcome_and_another_seed_another() -> None:
    of = devices(fast={"loss": 0.05}, middle={"fails_at_s": (5.0,), "returns_at_s": (9.0,)}, slow={"half_duplex": True})
    first, again, other = (run(*of, policy="crowd_learning", seed=seed, rounds_max=6) for seed in (1, 1, 2))
    assert first == again
    assert digests(other) != digests(first)


def test_what_torch_did_before_and_does_afterwards_is_its_own_affair() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(rounds_max=1)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


# --- how a run ends ---------------------------------------------------------------------------------------------------


def test_a_run_ends_when_the_target_is_reached_with_one_model_on_all_devices() -> None:
    outcome = run(policy="crowd_learning", target=0.8, rounds_max=None)
    run_record = record(experiment(policy="crowd_learning", target=0.8, rounds_max=None), outcome)
    assert outcome.reached
    assert outcome.goal.target == 0.8
    assert run_record["final_value"] >= 0.8
    assert run_record["seconds_to_target"] == round(end_s(outcome), 3)
    assert len(set(digests(outcome))) == 1
    assert None not in digests(outcome)
    assert 0 < run_record["balance_efficiency"] <= 1.01


def test_a_run_that_is_stopped_tells_of_the_rounds_that_were_asked_for() -> None:
    reported: list[RoundReport] = []
    outcome = Simulation().run(experiment(rounds_max=2, target=1.0), reported.append)
    assert not outcome.reached
    assert [news.point.round for news in reported] == [1, 2]
    for metrics in outcome.devices.values():
        assert [point.round for point in metrics.curve] == [1, 2]
        assert metrics.busy_s is not None
        assert metrics.curve[-1].elapsed_s == metrics.elapsed_s > metrics.busy_s > 0
        assert metrics.samples_trained == 2 * 479, "with FedAvg a round is an epoch"
        assert metrics.generations == 1
    assert len(set(digests(outcome))) == 1
    assert None not in digests(outcome)


def test_a_run_that_is_given_so_many_seconds_ends_with_them_and_is_no_different_until_then() -> None:
    whole = run(rounds_max=4)
    limit_s = round(end_s(whole) * 0.7, 3)
    stopped = run(rounds_max=4, seconds_max=limit_s)
    assert not stopped.reached
    assert [metrics.elapsed_s for metrics in stopped.devices.values()] == pytest.approx([limit_s] * 3)
    for name, metrics in stopped.devices.items():
        assert 0 < len(metrics.curve) < 4
        assert metrics.curve == whole.devices[name].curve[: len(metrics.curve)]


def test_a_run_that_ends_before_its_seconds_are_over_is_no_different() -> None:
    assert run(rounds_max=2, seconds_max=1e6) == run(rounds_max=2)


def test_links_were_busy_as_long_as_their_bytes_take() -> None:
    outcome = run(rounds_max=2)
    for name, metrics in outcome.devices.items():
        transfers = outcome.transfers[name]
        for spans, size_bytes in ((transfers.up, metrics.bytes_up), (transfers.down, metrics.bytes_down)):
            busy_s = sum(max(0.0, ends_s - max(begins_s, 0.0)) for begins_s, ends_s in spans)
            assert busy_s * 20e6 / 8 == pytest.approx(size_bytes, rel=0.1), "all but what acknowledges the other way"
            assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))


def test_a_task_of_ones_own_brings_its_own_data() -> None:
    outcome = run(task=SMALL, rounds_max=1)
    assert [metrics.samples_trained for metrics in outcome.devices.values()] == [200, 200, 200]


def test_a_cluster_without_samples_is_bad_input() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        run(task=f"{__name__}:nothing")
    assert caught.group_contains(BadConfig, match="no device has samples")


# --- devices that fail and return -------------------------------------------------------------------------------------


def test_a_device_that_fails_for_good_holds_nobody_up() -> None:
    outcome = run(*devices(slow={"fails_at_s": (4.0,)}), rounds_max=6)
    fast, middle, slow = digests(outcome)
    assert fast == middle
    assert fast is not None
    assert slow is None
    assert [len(metrics.curve) for metrics in outcome.devices.values()][:2] == [6, 6]
    assert outcome.devices["slow"].elapsed_s < 4.0 < end_s(outcome)


def test_a_device_that_returns_takes_part_again_and_its_figures_add_up() -> None:
    outcome = run(*devices(middle={"fails_at_s": (5.0,), "returns_at_s": (15.0,)}), rounds_max=12)
    assert len(set(digests(outcome))) == 1
    fast, middle = outcome.devices["fast"], outcome.devices["middle"]
    assert middle.away_s == pytest.approx(10.0)
    missed = set(range(1, 13)) - {point.round for point in middle.curve}
    assert missed
    assert fast.samples_trained is not None
    assert middle.samples_trained is not None
    assert 479 < middle.samples_trained < fast.samples_trained
    assert middle.busy_s is not None
    assert middle.busy_s < middle.elapsed_s - middle.away_s


def test_with_the_broker_s_device_the_broker_fails_and_all_go_on_when_it_is_back() -> None:
    def fails(host: str) -> ExperimentResult:
        middle = {"fails_at_s": (5.0,), "returns_at_s": (125.0,)}
        return run(*devices(middle=middle | {"broker": host == "middle"}), rounds_max=8)

    assert end_s(fails("elsewhere")) < 120 < end_s(fails("middle"))
    assert len(set(digests(fails("middle")))) == 1


def test_without_its_broker_for_good_a_cluster_is_over() -> None:
    outcome = run(*devices(middle={"broker": True, "fails_at_s": (7.0,)}), rounds_max=8)
    assert not outcome.reached
    assert 0 < end_s(outcome) < 7


def test_a_node_that_starts_while_there_is_no_broker_is_started_again() -> None:
    outcome = run(
        *devices(
            middle={"broker": True, "fails_at_s": (5.0,), "returns_at_s": (20.0,)},
            slow={"fails_at_s": (6.0,), "returns_at_s": (10.0,)},
        ),
        rounds_max=8,
    )
    assert len(set(digests(outcome))) == 1
    assert None not in digests(outcome)


def test_a_cluster_that_waits_for_a_device_that_is_gone_for_good_stands_still() -> None:
    with capture_logs() as logs:
        outcome = run(*devices(slow={"fails_at_s": (0.1,)}), task=SMALL)
    assert not outcome.reached
    assert end_s(outcome) == 0
    assert "run_stands_still" in [entry["event"] for entry in logs]


# --- what the cluster file says of a device ---------------------------------------------------------------------------


def test_a_speed_schedule_slows_the_rounds() -> None:
    slowed = run(*devices(**{name: {"speed_schedule": ((0.0, 0.25),)} for name in NAMES}))
    assert end_s(slowed) > 3 * end_s(run())


def test_a_device_is_slow_only_from_the_time_on_that_its_schedule_says() -> None:
    plain = run().devices["slow"]
    slowed = run(*devices(slow={"speed_schedule": ((20.0, 0.25),)})).devices["slow"]
    assert slowed.curve[0] == plain.curve[0]
    assert slowed.curve[-1].elapsed_s > 1.1 * plain.curve[-1].elapsed_s


def test_at_the_end_a_model_on_its_way_counts_and_is_not_asked_for_again() -> None:
    """It takes 3 s, more than a device waits for a slice or a state where links are fast."""
    speeds_gflops = {"fast": 20.0, "middle": 4.0, "slow": 4.0}
    narrow = {
        name: {"train_gflops": speed, "uplink_mbps": 1.0, "downlink_mbps": 1.0} for name, speed in speeds_gflops.items()
    }
    outcome = run(*devices(**narrow), policy="ship_once", rounds_max=None, seed=1)  # meets the target twice in a row
    trainer, others = outcome.devices["fast"], (outcome.devices["middle"], outcome.devices["slow"])
    assert all(trainer.elapsed_s < other.elapsed_s for other in others)
    assert all(other.bytes_down > STATE_BYTES for other in others)
    assert STATE_BYTES < trainer.bytes_up < 1.1 * STATE_BYTES


def test_half_duplex_makes_a_link_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it carries both ways at once: with a slice of its own each device sends and hears all the time, and no
    processor is what it waits for."""
    for cost in COSTS:
        monkeypatch.setattr(backend, cost, 0.0)
    narrow = {"uplink_mbps": 1.0, "downlink_mbps": 1.0}
    full, half = (
        run(*devices(**{name: narrow | {"half_duplex": half_duplex} for name in NAMES}), policy="all_reduce")
        for half_duplex in (False, True)
    )
    assert end_s(half) > 1.4 * end_s(full)


@pytest.mark.parametrize("cost", COSTS)
def test_what_a_node_does_beside_its_training_makes_a_round_longer(monkeypatch: pytest.MonkeyPatch, cost: str) -> None:
    # the same processors in both, fast enough that nobody is taken for dead, and bulk that fills much of the round
    monkeypatch.setattr(backend, "UNEVENNESS", 0.0)
    equal = devices(**{name: {"train_gflops": 1.0} for name in NAMES})
    costly = end_s(run(*equal, policy="all_reduce"))
    monkeypatch.setattr(backend, cost, 0)
    assert costly > 1.05 * end_s(run(*equal, policy="all_reduce"))


def test_a_processor_is_uneven_as_stated_and_slow_for_more_than_one_piece() -> None:
    factors = list(itertools.islice(backend._unevenness(random.Random(0)), 20_000))
    logarithms = [math.log(factor) for factor in factors]
    assert statistics.fmean(logarithms) == pytest.approx(0.0, abs=0.005)
    assert statistics.stdev(logarithms) == pytest.approx(backend.UNEVENNESS, rel=0.05)
    kept = statistics.correlation(logarithms[:-1], logarithms[1:])
    assert kept == pytest.approx(backend.UNEVENNESS_KEPT, abs=0.02)


def test_devices_of_one_kind_measure_different_speeds() -> None:
    """Plans must do with speeds that are near the truth."""
    equal = {name: {"train_gflops": 1.0} for name in NAMES}
    with capture_logs() as logs:
        run(*devices(**equal), rounds_max=1)
    speeds = [log["speed_kflops"] for log in logs if log["event"] == "device_measured"]
    assert len(speeds) == len(set(speeds)) == len(NAMES)
    assert all(700_000 < speed < 1_300_000 for speed in speeds)


@pytest.mark.parametrize("count", [5, 10])
def test_links_that_are_busy_for_minutes_make_nobody_think_that_another_is_dead(count: int) -> None:
    """At 25 kB/s every round is some minutes of transfers: chunks, heartbeats and answers all come late."""
    slow = tuple(
        DeviceConfig(
            name=f"n{number}", train_gflops=0.05, memory_mib=512, uplink_mbps=0.2, downlink_mbps=0.2, latency_ms=20.0
        )
        for number in range(count)
    )
    with capture_logs() as logs:
        outcome = run(*slow, rounds_max=2)
    assert not [log for log in logs if log["event"] in ("device_evicted", "transfer_failed")]
    assert len({metrics.digest for metrics in outcome.devices.values()} - {None}) == 1
    state_bytes = 4 * 99_530
    # in each round a device sends its contributions and its slice, and hears as many contributions and all slices
    assert traffic_bytes(outcome) < 1.5 * 2 * count * 3 * state_bytes


def test_latency_makes_a_round_longer() -> None:
    assert end_s(run(*devices(slow={"latency_ms": 300.0}))) > end_s(run()) + 3 * 0.3


def test_the_device_on_which_the_broker_runs_carries_everybody_s_bytes() -> None:
    own, hosted = (run(*devices(middle={"broker": broker})).devices["middle"] for broker in (False, True))
    assert hosted.bytes_up + hosted.bytes_down > 2 * (own.bytes_up + own.bytes_down)


def test_lost_packets_are_sent_again_and_counted() -> None:
    lossy = run(*devices(**{name: {"loss": 0.3} for name in NAMES}))
    assert traffic_bytes(lossy) > 1.2 * traffic_bytes(run())


@pytest.mark.parametrize(("share", "leaves"), [(Share.RAW, True), (Share.NEVER, False), (Share.FEATURES, False)])
def test_samples_leave_a_device_only_if_it_shares_them(
    share: Share, leaves: bool, said: list[tuple[DeviceId, Delivery]]
) -> None:
    mine = experiment(*devices(slow={"share": share}), policy="crowd_learning", rounds_max=1)
    Simulation().run(mine, lambda point: None)
    samples = plugins.make_task("digits", "slow", part_of(mine.cluster, 2, "digits")).data
    images = [samples[index][0].numpy().tobytes() for index in range(len(samples))]  # type: ignore[arg-type]
    sent = b"".join(delivery.payload for device, delivery in said if device == "slow")
    assert any(image in sent for image in images) == leaves
