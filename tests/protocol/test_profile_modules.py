"""The modules of a network in a profile, as they travel."""

from typing import Any

import cbor2
import pytest

from crowd.planning.profile import Module
from crowd.protocol.codec import Refused, decode, encode
from crowd.protocol.messages import ProfileMessage
from tests.support.profiles import make_profile, task_facts


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        ([["0", 4, 1, 8]], "the modules have 4 elements, the state 9"),
        ([["0", 9, 2, 8]], "the modules take 2 FLOPs a sample, the network 1"),
        ([["0", 9, 1, 8]] + [["1", 0, 0, 0]] * 256, "257 modules; a network has 1 to 256"),
        ([["n" * 65, 9, 1, 8]], "the name of a module has more than 64 characters"),
        ([["0", 9, 1, -8]], "-8"),
        ([["0", 9, 1]], "expected an array of 4, found 3"),
        ([[0, 9, 1, 8]], "is no text"),
        ([{"name": "0"}], "expected an array"),
    ],
)
def test_modules_that_are_not_the_network_are_refused(modules: list[Any], complaint: str) -> None:
    task = task_facts(state_elements=9, flops_per_sample=1)
    plain = cbor2.loads(encode(ProfileMessage(profile=make_profile("gateway", task=task))))
    plain["profile"]["task"]["modules"] = modules
    with pytest.raises(Refused) as refused:
        decode(cbor2.dumps(plain))
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_profile_with_as_many_modules_as_may_be_stays_a_small_message() -> None:
    modules = tuple(Module(f"encoder.layers.{number}", 10**6, 10**9, 10**5) for number in range(256))
    task = task_facts(state_elements=256 * 10**6, flops_per_sample=256 * 10**9, modules=modules)
    message = ProfileMessage(profile=make_profile("gateway", task=task))
    assert decode(encode(message)) == message
    assert len(encode(message)) < 12_000
