from typing import Any

import pytest

from crowd.agreement.ack import StateProgress
from crowd.protocol.messages import CurvePoint, ResultMessage
from crowd.run_record import DeviceMetrics, Point, RunGoal, cluster_curve, metrics_of, run_record

KEYS = {
    "policy",
    "cluster",
    "task",
    "seed",
    "metric",
    "better",
    "target",
    "reached",
    "seconds_to_target",
    "seconds_total",
    "bytes_to_target",
    "bytes_total",
    "bytes_up",
    "rounds",
    "samples_trained",
    "final_value",
    "curve",
    "loss_curve",
    "balance_efficiency",
    "generations",
    "idle",
    "hardly_trained",
    "model_digests",
    "devices",
}


def point(number: int, elapsed_s: float, value: float | None, traffic_bytes: int, loss: float | None = None) -> Point:
    return Point(round=number, elapsed_s=elapsed_s, value=value, loss=loss, traffic_bytes=traffic_bytes)


def metrics(*curve: Point, **values: Any) -> DeviceMetrics:
    known: dict[str, Any] = {
        "elapsed_s": 10.0,
        "busy_s": 6.0,
        "bytes_up": 100,
        "bytes_down": 20,
        "samples_trained": 640,
        "generations": 2,
        "digest": "ab",
    }
    return DeviceMetrics(**(known | values), curve=curve)


def record(
    devices: dict[str, DeviceMetrics],
    *,
    reached: bool = True,
    target: float | None = 0.95,
    hardly_trained: dict[str, tuple[int, str]] | None = None,
) -> dict[str, Any]:
    return run_record(
        devices,
        policy="fedavg",
        cluster="home",
        task="digits",
        seed=7,
        goal=RunGoal(metric="accuracy", better="higher", target=target),
        reached=reached,
        idle={"b": (30, "it is too slow"), "a": (2, "no room")},
        hardly_trained=hardly_trained,
    )


def test_a_record_has_the_keys_of_the_contract() -> None:
    run = record({"a": metrics()})
    assert run.keys() == KEYS
    assert run["devices"]["a"].keys() == {"busy_s", "idle_s", "bytes_up", "bytes_down"}


def test_a_record_says_whose_samples_nobody_trained_and_why() -> None:
    assert record({"a": metrics()})["idle"] == {"a": [2, "no room"], "b": [30, "it is too slow"]}


def test_a_record_says_whose_samples_hardly_were_trained_and_null_if_nobody_knows() -> None:
    assert record({"a": metrics()})["hardly_trained"] is None
    assert record({"a": metrics()}, hardly_trained={})["hardly_trained"] == {}
    assert record({"a": metrics()}, hardly_trained={"b": (30, "late")})["hardly_trained"] == {"b": [30, "late"]}


def test_a_record_sums_bytes_and_samples_and_takes_the_time_of_the_slowest() -> None:
    run = record({"a": metrics(point(3, 9.0, 0.9, 120)), "b": metrics(elapsed_s=12.0, generations=5)})
    assert (run["bytes_total"], run["bytes_up"], run["bytes_to_target"]) == (240, 200, 240)
    assert (run["seconds_to_target"], run["samples_trained"], run["rounds"]) == (12.0, 1280, 3)
    assert run["generations"] == 5
    assert run["devices"]["b"] == {"busy_s": 6.0, "idle_s": 6.0, "bytes_up": 100, "bytes_down": 20}
    assert run["model_digests"] == {"a": "ab", "b": "ab"}


def test_a_run_short_of_its_target_has_no_figures_to_it() -> None:
    run = record({"a": metrics(point(1, 2.0, 0.5, 50))}, reached=False)
    assert (run["reached"], run["seconds_to_target"], run["bytes_to_target"]) == (False, None, None)
    assert (run["bytes_total"], run["final_value"]) == (120, 0.5)


def test_what_one_device_did_not_say_is_null_and_not_nought() -> None:
    run = record({"a": metrics(), "b": metrics(busy_s=None, samples_trained=None, generations=None)})
    assert run["samples_trained"] is None
    assert run["devices"]["b"]["busy_s"] is run["devices"]["b"]["idle_s"] is None
    assert run["generations"] == 2


def test_the_curve_waits_for_the_last_device_and_counts_every_link() -> None:
    curve = cluster_curve(
        {
            "a": metrics(point(1, 1.0, 0.5, 10), point(2, 2.0, 0.6, 20)),
            "b": metrics(point(1, 1.5, 0.5, 30)),  # it missed the second round
        }
    )
    assert curve == [point(1, 1.5, 0.5, 40), point(2, 2.0, 0.6, 50)]


def test_rounds_that_nobody_evaluated_are_not_in_the_curve() -> None:
    assert cluster_curve({"a": metrics(point(1, 1.0, None, 10))}) == []


def test_the_loss_of_every_round_in_which_one_trained_has_a_curve_of_its_own() -> None:
    run = record({"a": metrics(point(1, 1.0, None, 10, loss=0.5), point(2, 2.0, 0.6, 20))})
    assert run["loss_curve"] == [[1.0, 0.5]]
    assert run["curve"] == [[2.0, 0.6, 20]]


def test_without_a_target_a_run_has_no_figures_to_it_and_the_value_of_the_state_that_was_kept() -> None:
    curve = (point(1, 1.0, 0.7, 10), point(2, 2.0, 0.6, 20))
    run = record({"a": metrics(*curve, final_value=0.7), "b": metrics(*curve)}, target=None)
    assert (run["target"], run["reached"], run["final_value"]) == (None, True, 0.7)
    assert run["seconds_to_target"] is run["bytes_to_target"] is None


def test_a_published_result_becomes_seconds_bytes_and_hexadecimal() -> None:
    result = ResultMessage(
        progress=StateProgress(run=1, samples=64, round=2, digest=b"\xab\xcd", finished=True),
        reached=True,
        value=0.75,
        elapsed_us=2_500_000,
        busy_us=1_000_000,
        bytes_up=5,
        bytes_down=6,
        samples_trained=64,
        speed_kflops=1,
        generations=3,
        model_digest=b"\xab\xcd",
        curve=(
            CurvePoint(round=1, elapsed_us=1_000_000, value=None, evaluated=0, loss=0.5, bytes_up=1, bytes_down=2),
            CurvePoint(round=2, elapsed_us=2_000_000, value=0.75, evaluated=4, loss=None, bytes_up=3, bytes_down=4),
        ),
    )
    found = metrics_of(result)
    assert (found.elapsed_s, found.busy_s, found.digest) == (2.5, 1.0, "abcd")
    assert found.curve == (point(1, 1.0, None, 3, loss=0.5), point(2, 2.0, 0.75, 7))
    assert found.final_value == 0.75


def test_a_device_that_is_switched_off_is_not_idle() -> None:
    assert record({"a": metrics(away_s=3.0)})["devices"]["a"]["idle_s"] == 1.0


@pytest.mark.parametrize("busy_s", [11.0, 10.0])
def test_a_device_is_never_idle_for_less_than_no_time(busy_s: float) -> None:
    assert record({"a": metrics(busy_s=busy_s)})["devices"]["a"]["idle_s"] == 0.0
