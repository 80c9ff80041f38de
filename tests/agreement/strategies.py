"""Arbitrary clusters, for Hypothesis."""

from hypothesis import strategies as st

from crowd.planning.estimate import memory_needed_bytes
from crowd.planning.policy import Policy
from crowd.planning.profile import Prefer, Profile, Share
from policies.baselines.all_reduce import AllReduce
from policies.baselines.all_reduce_balanced import AllReduceBalanced
from policies.baselines.d_psgd import DPSGD
from policies.baselines.d_psgd_random import DPSGDRandom
from policies.baselines.diloco import DiLoCo
from policies.baselines.fedavg import FedAvg
from policies.baselines.fedbuff import FedBuff
from policies.baselines.fedprox import FedProx
from policies.baselines.local_only import LocalOnly
from policies.baselines.mercury import Mercury
from policies.baselines.ship_once import ShipOnce
from policies.crowd_learning.policy import CrowdLearning
from tests.support.profiles import make_profile, task_facts

POLICIES: dict[str, Policy] = {
    "all_reduce": AllReduce(),
    "all_reduce_balanced": AllReduceBalanced(),
    "crowd_learning": CrowdLearning(),
    "d_psgd": DPSGD(),
    "d_psgd_random": DPSGDRandom(),
    "diloco": DiLoCo(),
    "fedavg": FedAvg(),
    "fedbuff": FedBuff(),
    "fedprox": FedProx(),
    "local_only": LocalOnly(),
    "mercury": Mercury(),
    "ship_once": ShipOnce(),
}


@st.composite
def clusters(draw: st.DrawFn, policies: tuple[str, ...] = tuple(POLICIES)) -> tuple[Profile, ...]:
    """1 to 12 devices of any speed, link, share level, memory (from nothing to plenty) and labels."""
    task = task_facts(
        state_elements=draw(st.sampled_from([1, 255, 257, 54_314, 20_000_000])),
        flops_per_sample=draw(st.sampled_from([1, 600_000, 120_000_000])),
        sample_bytes=draw(st.sampled_from([1, 65, 785, 100_000])),
        evaluation_samples=draw(st.sampled_from([0, 1, 360])),
        epochs_max=draw(st.integers(1, 60)),
    )
    needed = memory_needed_bytes(task, trains=True, owned_elements=task.state_elements)
    policy = draw(st.sampled_from(policies))
    prefer = draw(st.sampled_from(Prefer))
    names = draw(st.lists(st.sampled_from([f"d{index}" for index in range(20)]), min_size=1, max_size=12, unique=True))
    return tuple(
        make_profile(
            name,
            task=task,
            policy=policy,
            prefer=prefer,
            speed_kflops=draw(st.integers(1, 10**9)),
            memory_bytes=draw(st.one_of(st.integers(0, 2 * needed), st.just(100 * needed + 10**9))),
            uplink_bytes_s=draw(st.integers(1, 10**9)),
            downlink_bytes_s=draw(st.integers(1, 10**9)),
            share=draw(st.sampled_from(Share)),
            label_counts=tuple(draw(st.lists(st.integers(0, 300), max_size=6))),
        )
        for name in names
    )
