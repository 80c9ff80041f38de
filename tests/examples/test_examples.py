"""The examples, run as a user runs them: programs of their own, judged by what they print and leave behind."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from brokers import mqtt
from crowd.errors import BrokerRefused, PublishDenied
from crowd.protocol.identity import read_members
from crowd.units import Address, Channel, DeviceId
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.alone

EXAMPLES = Path(__file__).parents[2] / "examples"
START_HOME = EXAMPLES / "smart_home" / "start.sh"
GATEWAY, PHONE, TABLET = DeviceId("gateway"), DeviceId("phone"), DeviceId("tablet")
DEVICES = [GATEWAY, PHONE, TABLET]
TIMEOUT_S = 300.0


def run(*command: str | Path, directory: Path, **environment: str) -> str:
    """What the command printed; it must end by itself, with 0."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def accuracies(printed: str) -> list[float]:
    """In percent, in the order of the rounds."""
    return [float(found) for found in re.findall(r"round \d+[:,] +(\d+\.\d)%", printed)]


def test_the_quickstart_ends_with_the_same_model_on_both_devices(tmp_path: Path) -> None:
    printed = run(sys.executable, EXAMPLES / "quickstart.py", directory=tmp_path)

    digests = re.findall(r"'(\w+)': '([0-9a-f]{32})'", printed)
    assert sorted(device for device, _ in digests) == ["kitchen", "study"], printed
    assert len({digest for _, digest in digests}) == 1
    assert printed.endswith("the same model\n")
    assert accuracies(printed)[-1] >= 90.0


def test_an_application_goes_on_while_a_node_trains_beside_it(tmp_path: Path) -> None:
    printed = run(sys.executable, EXAMPLES / "embed_in_asyncio_app.py", directory=tmp_path)

    assert accuracies(printed)[-1] >= 95.0
    assert printed.count("sensor: ") >= 2, "the application was not heard of while the node trained"
    [(read, expected)] = re.findall(r"the network reads (\[.*\]), which is (\[.*\])", printed)
    right = sum(one == other for one, other in zip(json.loads(read), json.loads(expected), strict=True))
    assert right >= 4, printed


def test_three_devices_of_a_home_train_one_model_and_again_with_the_same_keys(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    run(START_HOME, home, directory=tmp_path, **home_environment())
    members = read_members(home / "members.toml")
    assert sorted(members) == DEVICES
    assert_one_model(home)

    for device in DEVICES:
        shutil.rmtree(home / device / "state")
    interrupt_after_a_round(home)
    again = read_members(home / "members.toml")
    assert {name: key.public_bytes_raw() for name, key in again.items()} == {
        name: key.public_bytes_raw() for name, key in members.items()
    }


def home_environment() -> dict[str, str]:
    crowd = Path(sys.executable).with_name("crowd")
    return {"PORT": str(free_port()), "CROWD": str(crowd), "OMP_NUM_THREADS": "1"}


def interrupt_after_a_round(home: Path) -> None:
    """Start that home, and stop it by Ctrl-C once it trains: nothing that it started may go on."""
    log = home / GATEWAY / "log"
    log.unlink()
    with (
        subprocess.Popen(
            [START_HOME, home], env=os.environ | home_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as started,
        subprocess.Popen(
            ["tail", f"--pid={started.pid}", "-n", "+1", "-F", log], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as following,
    ):
        assert following.stdout is not None
        assert any(b"round_complete" in line for line in following.stdout), "it ended before its first round"
        children = psutil.Process(started.pid).children(recursive=True)
        started.send_signal(signal.SIGINT)
        printed, _ = started.communicate(timeout=60)
    assert started.returncode == 130, printed
    assert len(children) >= 1 + len(DEVICES), "the broker and the nodes"
    assert not any(child.is_running() for child in children)


def assert_one_model(home: Path) -> None:
    runs = [json.loads((home / device / "result.json").read_text())["runs"][0] for device in DEVICES]
    assert all(run["reached"] for run in runs)
    assert all(sorted(run["model_digests"]) == DEVICES for run in runs)
    assert len({digest for run in runs for digest in run["model_digests"].values()}) == 1
    models = {(home / device / "state" / "model.safetensors").read_bytes() for device in DEVICES}
    assert len(models) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fields",
    [
        {"channel": Channel.STATUS},
        {"channel": Channel.INFO},
        {"channel": Channel.PROFILE},
        {"channel": Channel.ACK},
        {"channel": Channel.RESULT},
        {"channel": Channel.BEAT},
        {"channel": Channel.ALL},
        {"channel": Channel.TO, "destination": PHONE},
        {"channel": Channel.BLOB, "destination": PHONE, "name": "t1", "chunk": 0},
        {"channel": Channel.BLOB, "destination": None, "name": "t1", "chunk": 0},
    ],
)
async def test_the_access_list_lets_a_device_publish_only_as_itself(fields: dict[str, Any]) -> None:
    acl = (EXAMPLES / "smart_home" / "acl").read_text()
    forged, genuine = (Address(source=source, **fields) for source in (TABLET, GATEWAY))
    with Mosquitto(users={GATEWAY: "secret", PHONE: "secret"}, acl=acl) as mosquitto, anyio.fail_after(TIMEOUT_S):
        gateway, phone = (
            mqtt.from_url(mosquitto.url, cluster="home", device=device, username=device, password="secret")
            for device in (GATEWAY, PHONE)
        )
        async with gateway.session() as sender, phone.session() as receiver:
            await receiver.subscribe(forged, genuine)
            with pytest.raises(PublishDenied, match="allow writing it"):
                await sender.publish(forged, b"forged")
            await sender.publish(genuine, b"genuine")
            # one connection's messages keep their order, so the forged one would come first
            assert (await receiver.receive()).payload == b"genuine"


@pytest.mark.anyio
async def test_the_access_list_keeps_what_is_meant_for_one_device_from_the_others() -> None:
    acl = (EXAMPLES / "smart_home" / "acl").read_text()
    to_tablet = Address(channel=Channel.BLOB, source=GATEWAY, destination=TABLET, name="t1", chunk=0)
    to_all = Address(channel=Channel.ALL, source=GATEWAY)
    with Mosquitto(users={GATEWAY: "secret", PHONE: "secret"}, acl=acl) as mosquitto, anyio.fail_after(TIMEOUT_S):
        gateway, phone = (
            mqtt.from_url(mosquitto.url, cluster="home", device=device, username=device, password="secret")
            for device in (GATEWAY, PHONE)
        )
        async with gateway.session() as sender, phone.session() as receiver:
            with contextlib.suppress(BrokerRefused):  # a broker may refuse at once, or accept and deliver nothing
                await receiver.subscribe(to_tablet)
            await receiver.subscribe(to_all)
            await sender.publish(to_tablet, b"samples")
            await sender.publish(to_all, b"for all")
            assert (await receiver.receive()).payload == b"for all"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
