"""Eight `crowd node` processes on this machine train the task `digits` to 95 % over a Mosquitto of their own.

    python examples/benchmarks/bench_eight_nodes.py [--nodes 8] [--alpha 0.3]

Prints the time from the start of the first process to the end of the last, rounds, bytes (as the nodes count them, and
as Mosquitto's own counters have them: payloads and MQTT headers, without TCP and IP), and whether all hold one model.
For comparison: bench_ddp.py.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiomqtt
import anyio

from crowd.protocol.identity import generate_key, public_line, write_key

NODE = """
[node]
name = "{name}"
cluster = "bench"
broker = "mqtt://127.0.0.1:{port}"
key_file = "{name}.key"
members_file = "members.toml"
state_dir = "{name}"
[train]
task = "digits"
members_min = {nodes}
[data]
partition = "dirichlet"
alpha = {alpha}
part = {part}
parts = {nodes}
"""
TIMEOUT_S = 600
COUNTERS = ("$SYS/broker/bytes/received", "$SYS/broker/bytes/sent")


def write_files(directory: Path, nodes: int, alpha: float, port: int) -> list[str]:
    """Keys for this run alone, and a node.toml for each device; returns the names."""
    names = [f"node-{part}" for part in range(nodes)]
    lines = []
    for part, name in enumerate(names):
        key = generate_key()
        write_key(directory / f"{name}.key", key)
        lines.append(public_line(name, key))
        text = NODE.format(name=name, port=port, nodes=nodes, alpha=alpha, part=part)
        (directory / f"{name}.toml").write_text(text)
    (directory / "members.toml").write_text("\n".join(lines) + "\n")
    return names


def start_broker(directory: Path, port: int, running: ExitStack) -> None:
    """Returns when it accepts connections."""
    (directory / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser {os.environ.get('USER', 'root')}\nsys_interval 1\n"
    )
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"
    start(running, [program, "-c", str(directory / "mosquitto.conf")], directory / "mosquitto.log")
    give_up = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        if time.monotonic() > give_up:
            sys.exit(f"Mosquitto does not start:\n{(directory / 'mosquitto.log').read_text()}")
        time.sleep(0.05)


def start(running: ExitStack, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process that ends with `running` at the latest."""
    process = subprocess.Popen(command, stdout=running.enter_context(log.open("wb")), stderr=subprocess.STDOUT)
    running.callback(process.wait)
    running.callback(process.terminate)
    return process


async def counters(port: int) -> list[int]:
    """Bytes that Mosquitto has received and sent."""
    found: dict[str, int] = {}
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe([(topic, 0) for topic in COUNTERS])
        await anyio.sleep(2)  # two intervals, so that what is counted includes the end of the run
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            found[message.topic.value] = int(message.payload)
            if len(found) == len(COUNTERS):
                break
    return [found[topic] for topic in COUNTERS]


def main() -> int:
    parser = argparse.ArgumentParser(description="The task digits with crowd node processes.")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=0.3, help="of the Dirichlet distribution of the labels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        directory, port = Path(name), free_port()
        names = write_files(directory, arguments.nodes, arguments.alpha, port)
        start_broker(directory, port, running)
        command = [sys.executable, "-c", "from crowd.cli.main import main; raise SystemExit(main())", "node", "--once"]
        began = time.monotonic()
        nodes = [
            start(
                running,
                [*command, "--config", f"{directory / node}.toml", "--json", f"{directory / node}.json"],
                directory / f"{node}.log",
            )
            for node in names
        ]
        codes = [node.wait(TIMEOUT_S) for node in nodes]
        wall_s = time.monotonic() - began
        received, sent = anyio.run(counters, port)
        if any(codes):
            failed = names[next(place for place, code in enumerate(codes) if code)]
            print(f"exit codes {codes}; {failed}:\n{(directory / f'{failed}.log').read_text()[-2000:]}")
            return 1
        runs = [json.loads((directory / f"{node}.json").read_text())["runs"][0] for node in names]
    report(runs, wall_s, received, sent)
    return 0


def report(runs: list[dict[str, Any]], wall_s: float, received: int, sent: int) -> None:
    first = runs[0]
    digests = {digest for run in runs for digest in run["model_digests"].values()}
    print(f"{'reached' if first['reached'] else 'not reached'}: {first['final_value']:.1%}, {first['rounds']} rounds")
    print(f"from the start of the first process to the end of the last {wall_s:.1f} s", end=", ")
    print(f"of which training {first['seconds_to_target']} s")
    print(f"all links, up and down, as the nodes count: {first['bytes_total'] / 1e6:.1f} MB")
    print(f"Mosquitto: {received / 1e6:.1f} MB received, {sent / 1e6:.1f} MB sent")
    print(f"models: {len(digests)} ({', '.join(sorted(digests))})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
