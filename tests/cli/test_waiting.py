"""What is said on devices that wait: who is here, who is missing, who does not answer or is not believed."""

from functools import partial

import anyio

from crowd.cli.waiting import Acquaintances, tell_waiting
from crowd.protocol.codec import Opened
from crowd.protocol.identity import Ed25519Signer, generate_key
from crowd.protocol.messages import Beat
from crowd.units import Address, Channel, Life, device_id
from tests.node.cluster import Cluster, blobs, signers
from tests.support.virtual import virtual_time

NAMES = ("ada", "ben", "cy")


def acquaintances(device: str, *members: str) -> Acquaintances:
    return Acquaintances(device_id(device), [device_id(name) for name in members or NAMES])


class Home:
    """Devices that may wait for each other, and what is said on each."""

    def __init__(self, *names: str, members_min: int = 2) -> None:
        self.cluster = Cluster(*NAMES)
        self.said: dict[str, list[tuple[float, str]]] = {name: [] for name in names}
        self.known = {name: acquaintances(name) for name in names}
        self._members_min = members_min

    async def wait(self, seconds: float) -> None:
        """Let all be on for so long."""
        began_s = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for name, known in self.known.items():
                self.cluster.add(name, blobs(), members_min=self._members_min, probe=known)
                tasks.start_soon(self.cluster.play, name)
                tasks.start_soon(tell_waiting, known, partial(self._say, name, began_s))
            await anyio.sleep(seconds)
            tasks.cancel_scope.cancel()

    def _say(self, name: str, began_s: float, why: str) -> None:
        self.said[name].append((anyio.current_time() - began_s, why))

    def last(self, name: str) -> str:
        return self.said[name][-1][1]


@virtual_time
async def test_who_is_here_and_who_is_missing_is_said_after_ten_seconds_and_then_once_a_minute() -> None:
    home = Home("ada", "ben", members_min=3)
    await home.wait(100)
    for name in ("ada", "ben"):
        (first_s, why), (second_s, again) = home.said[name]
        assert why == again
        assert why.startswith("2 of 3 devices are here (ada, ben); missing: cy (switched on, ")
        assert (round(first_s), round(second_s - first_s)) == (11, 60)


@virtual_time
async def test_a_cluster_that_trains_or_has_finished_is_not_said_to_wait() -> None:
    home = Home("ada", "ben")
    await home.wait(300)
    assert home.cluster.digests["ada"] is not None
    assert home.said == {"ada": [], "ben": []}


@virtual_time
async def test_a_device_that_is_not_in_the_others_members_file_is_named_on_both() -> None:
    home = Home("ada", "ben")
    ben = device_id("ben")
    home.cluster.signers[device_id("ada")] = lacking(ben, "ada")
    home.known["ada"] = acquaintances("ada", "ada", "cy")
    await home.wait(60)
    assert "ben is here but not in ada's members file: add the line of 'crowd keys show' on ben" in home.last("ada")
    assert any("ada plans with other devices than are here" in why for _, why in home.said["ben"])


def lacking(device: str, owner: str) -> Ed25519Signer:
    """The signer of a device whose members file lacks another one."""
    complete = signers(*NAMES)[device_id(owner)]
    members = {name: key for name, key in complete._members.items() if name != device}
    return Ed25519Signer(complete._private_key, members)


@virtual_time
async def test_a_key_that_was_made_anew_is_named_on_both() -> None:
    home = Home("ada", "ben")
    key = generate_key()
    old = home.cluster.signers[device_id("ben")]
    home.cluster.signers[device_id("ben")] = Ed25519Signer(key, {**old._members, device_id("ben"): key.public_key()})
    await home.wait(60)
    assert "ben is not believed, as its key is another than in ada's members file" in home.last("ada")
    assert any("ada plans with other devices than are here" in why for _, why in home.said["ben"])


def test_another_device_with_the_same_name_and_key_is_told_from_a_former_life() -> None:
    known = acquaintances("ada")
    former, own, other = (Life(incarnation=1, boot=bytes([number]) * 16) for number in (1, 2, 3))
    known.life_began(own)

    def hear(channel: Channel, life: Life) -> None:
        message = Beat(life=life, view_digest=bytes(16), generation=0)
        known.let_in(
            Address(channel=channel, source=device_id("ada")),
            Opened(sender=device_id("ada"), life=life, sequence=1, message=message),
        )

    hear(Channel.BEAT, own)
    hear(Channel.PROFILE, other)  # the broker keeps it
    hear(Channel.BEAT, former)  # recorded
    assert "another device" not in str(known.why_waiting())
    hear(Channel.BEAT, other)
    assert "another device is here with the name ada and its key: give each a name" in str(known.why_waiting())
