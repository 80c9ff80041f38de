"""Networks of Linux namespaces: a bridge, and hosts that are joined to it by links of limited rate.

Layout: `Shape` (a link's rates), `Net` (a bridge and its hosts), `Counters` (the bytes of one host's link),
`namespaces`, `processes` and `remove_namespace` (what is left of a name).
"""

import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from crowd.errors import BadConfig
from crowd.ports import Traffic
from devices.lab.programs import find_program

ETHERNET_BYTES = 14
"""Bytes of the header that interfaces count and IP does not; the rates and bytes of links are of IP packets."""
QUEUE_BYTES = 4_000_000
"""Bytes that may wait for a link: as much as TCP ever has in flight, so that a queue loses nothing."""
BURST_S = 0.004
"""Seconds that a link may catch up on, a tick of the kernel."""
BURST_BYTES_MIN = 1_600
INTERFACE = "eth0"
PACKAGE = "iproute2"
"""The package that has the programs that are called here."""
_NAMES = Path("/run/netns")


@attrs.frozen(kw_only=True)
class Shape:
    """The rates of a link."""

    uplink_bytes_s: int
    downlink_bytes_s: int
    half_duplex: bool
    """Whether both directions share one channel; their rates must be the same."""

    def __attrs_post_init__(self) -> None:
        if self.half_duplex and self.uplink_bytes_s != self.downlink_bytes_s:
            raise BadConfig("half_duplex: the lab has one rate for both directions; give both the same")


class Net:
    """A bridge and its hosts, each in a namespace whose name begins with `prefix`; they go with `remove_namespace`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._hub = f"{prefix}-_hub"
        _run("ip", "netns", "add", self._hub)
        self._ip(self._hub, "link", "add", "hub", "type", "bridge")
        self._ip(self._hub, "link", "set", "hub", "addrgenmode", "none", "up")
        self._places: list[str] = []

    def join(self, host: str, shape: Shape | None) -> str:
        """Make a host, and return its address; without a `shape` its link is as fast as the machine."""
        name, port = self._name(host), f"port{len(self._places)}"
        self._places.append(host)
        address = f"10.88.{len(self._places) >> 8}.{len(self._places) & 255}"
        _run("ip", "netns", "add", name)
        self._ip(self._hub, "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", name)
        # one frame for each packet, so that a wire's packets are what is counted and shaped
        for namespace, end in ((self._hub, port), (name, INTERFACE)):
            self._ip(namespace, "link", "set", end, "gso_max_segs", "1", "addrgenmode", "none")
        self._ip(self._hub, "link", "set", port, "master", "hub", "up")
        self._ip(name, "address", "add", f"{address}/16", "dev", INTERFACE)
        self._ip(name, "link", "set", "lo", "up")
        self._ip(name, "link", "set", INTERFACE, "up")
        if shape is not None and shape.half_duplex:
            self._share(name, shape.uplink_bytes_s)
        elif shape is not None:
            self._limit(name, INTERFACE, shape.uplink_bytes_s)
            self._limit(self._hub, port, shape.downlink_bytes_s)
        return address

    def command(self, host: str, *command: str) -> list[str]:
        """The command that starts `command` on that host, as the same process."""
        return [find_program("ip", package=PACKAGE), "netns", "exec", self._name(host), *command]

    def _name(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _share(self, namespace: str, rate_bytes_s: int) -> None:
        """Send both directions through one shaper: an intermediate device, to which all is redirected."""
        self._ip(namespace, "link", "add", "both", "type", "ifb")
        self._ip(namespace, "link", "set", "both", "addrgenmode", "none", "up")
        self._limit(namespace, "both", rate_bytes_s)
        self._tc(namespace, "qdisc", "add", "dev", INTERFACE, "clsact")
        redirect = ("u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", "both")
        for direction in ("ingress", "egress"):
            self._tc(namespace, "filter", "add", "dev", INTERFACE, direction, "protocol", "all", *redirect)

    def _limit(self, namespace: str, interface: str, rate_bytes_s: int) -> None:
        burst_bytes = max(BURST_BYTES_MIN, math.ceil(rate_bytes_s * BURST_S))
        self._tc(
            namespace,
            *("qdisc", "add", "dev", interface, "root"),
            *("stab", "overhead", str(-ETHERNET_BYTES), "linklayer", "ethernet"),
            *("tbf", "rate", f"{rate_bytes_s * 8}bit", "burst", str(burst_bytes), "limit", str(QUEUE_BYTES)),
        )

    def _ip(self, namespace: str, *words: str) -> None:
        _run("ip", "-n", namespace, *words)

    def _tc(self, namespace: str, *words: str) -> None:
        _run("tc", "-n", namespace, *words)


class Counters:
    """The bytes over the link of a process's host, by its interface's own counters; also after that process has
    ended."""

    def __init__(self, pid: int) -> None:
        # the open file stays that of the namespace; this object is the context that closes it
        self._file = Path(f"/proc/{pid}/net/dev").open(encoding="ascii")  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self) -> Traffic:
        """Bytes of IP packets with their headers, since the host was made."""
        self._file.seek(0)
        return parse_counters(self._file.read())


def parse_counters(text: str) -> Traffic:
    """The bytes of `INTERFACE` in the text of `/proc/net/dev`, less the headers of its frames."""
    line = next(line for line in text.splitlines() if line.strip().startswith(f"{INTERFACE}:"))
    numbers = [int(word) for word in line.partition(":")[2].split()]
    received_bytes, received, sent_bytes, sent = numbers[0], numbers[1], numbers[8], numbers[9]
    return Traffic(up_bytes=sent_bytes - ETHERNET_BYTES * sent, down_bytes=received_bytes - ETHERNET_BYTES * received)


def namespaces(*, prefix: str) -> set[str]:
    """The names of the namespaces that begin with `prefix`."""
    return {path.name for path in _NAMES.glob(f"{prefix}*")}


def processes(name: str) -> set[int]:
    """The processes that are in that namespace."""
    return {int(pid) for pid in _run("ip", "netns", "pids", name).split()}


def remove_namespace(name: str) -> None:
    """Remove a namespace, and with it its end of every link."""
    _run("ip", "netns", "delete", name)


def _run(*command: str) -> str:
    """Run a command and return its output. Raises `BadConfig` if it fails: the machine does not let the lab do what it
    needs."""
    program = find_program(command[0], package=PACKAGE)
    done = subprocess.run(
        (program, *command[1:]), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise BadConfig(f"the lab cannot work here: '{_words(command)}' failed: {done.stderr.strip()}")
    return done.stdout


def _words(command: Sequence[str]) -> str:
    return " ".join(command)
