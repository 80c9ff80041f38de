"""The run of a marathon: `play`.

A short run of the same devices is recorded first, until all have finished and were killed. Then the broker forgets
everything, and the devices, in later lives, begin the long run, to which the table of incidents happens.
"""

import re
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import psutil

from tests.marathon import task
from tests.marathon.incidents import DEVICES, FINISH_S, MINUTES, TABLE, Incident, Kind
from tests.marathon.outsider import NEIGHBOUR, RECORDER, RECORDER_MAY, Recorded, pour_junk, recording, say_again
from tests.support.mosquitto import Mosquitto
from tests.support.processes import Home, NodeProcess

ACL = Path(__file__).parents[2] / "examples" / "smart_home" / "acl"
"""The access list of the guide, for the cluster `home`."""
LOOK_S = 1.0
_TRAINERS = re.compile(r"round_complete .*trainers=\['([^']+)'")
LATE_S = 60.0
"""Seconds after its end within which the last devices of a marathon may finish."""
FORMER_S = 30.0
"""Seconds of the former run before its target is in reach, in a marathon that is not stretched."""
WILLS_S = 2.0
"""Seconds that the broker may take to publish the wills of the killed."""


@attrs.define(kw_only=True)
class Ran:
    """One process of a device."""

    name: str
    lines: list[str]
    """Its log."""
    rss_bytes: list[tuple[float, int]] = attrs.field(factory=list)
    """Its resident memory, at times by `time.time`, as all times here."""
    is_killed: bool = False


@attrs.frozen(kw_only=True)
class Happened:
    """An incident, when it really began and was over, and how much of it there was."""

    incident: Incident
    began_s: float
    ended_s: float
    how_much: str = ""


@attrs.frozen(kw_only=True)
class Played:
    """What a marathon has come to."""

    ran: Sequence[Ran]
    happened: Sequence[Happened]
    factor: float
    """How much longer it was than one of `MINUTES`."""


def play(directory: Path, minutes: float) -> Played:
    """Run a marathon of so many minutes; logs, keys and models are kept in `directory`."""
    factor = minutes / MINUTES
    users = {name: secrets.token_hex(8) for name in (*DEVICES, NEIGHBOUR, RECORDER)}
    with Mosquitto(users=users, acl=f"{ACL.read_text()}\n{RECORDER_MAY}") as broker:
        home = Home(directory, broker, "tests.marathon.task:task", names=DEVICES)
        try:
            record = _former_run(home, FORMER_S * factor)
            broker.kill()  # it forgets what was retained
            broker.start()
            marathon = _Marathon(home, record, factor)
            marathon.run()
            return Played(ran=marathon.ran, happened=marathon.happened, factor=factor)
        finally:
            home.close()
            home.write_logs()


def _former_run(home: Home, lasts_s: float) -> list[Recorded]:
    """A run to the target, and what was published in it."""
    finish = home.directory / task.FINISH
    with recording(home.broker, "crowd/1/home/#") as record:
        processes = [home.start(name, once=False) for name in DEVICES]
        for process in processes:
            process.wait_for_round(1)
        time.sleep(lasts_s)
        finish.touch()
        for process in processes:
            process.wait_for(_has_finished)
        for process in processes:
            process.kill()
        time.sleep(WILLS_S)
    finish.unlink()
    home.forget_checkpoints()  # or they would rest, as that run is over
    return record


def _has_finished(line: str) -> bool:
    return "run_finished" in line


class _Marathon:
    """The long run. Its clock is that of `time.time`, as in the logs."""

    def __init__(self, home: Home, record: Sequence[Recorded], factor: float) -> None:
        self._home = home
        self._record = record
        self._factor = factor
        self._running: dict[str, tuple[Ran, NodeProcess]] = {}
        self._joining: list[NodeProcess] = []
        """Those that have not completed a round yet."""
        self.ran: list[Ran] = []
        self.happened: list[Happened] = []

    def run(self) -> None:
        for name in DEVICES:
            self._start(name)
        self._wait_for_rounds()
        began_s = time.time()
        for incident in TABLE:
            due = incident.stretched(self._factor)
            self._wait_until(began_s + due.at_s)
            self._wait_for_rounds()
            self._meet(due)
        self._wait_until(began_s + FINISH_S * self._factor)
        self._wait_for_rounds()  # who read the task later would have another schedule than the others
        (self._home.directory / task.FINISH).touch()
        end_s = time.time() + (60 * MINUTES - FINISH_S) * self._factor
        self._wait_until(end_s)
        while time.time() < end_s + LATE_S and not self._have_finished():
            self._wait_until(time.time() + LOOK_S)

    def _wait_for_rounds(self) -> None:
        """Wait until all devices take part: one that is still on its way would end where the broker refuses it."""
        while self._joining:
            self._joining.pop().wait_for_round(1)

    def _have_finished(self) -> bool:
        return all(any(map(_has_finished, ran.lines)) for ran, _ in self._running.values())

    def _trainer(self) -> str:
        """A device that trained in the last round that one of them has completed."""
        for ran, _ in self._running.values():
            for line in reversed(ran.lines):
                if (found := _TRAINERS.search(line)) is not None:
                    return found[1]
        raise RuntimeError("nobody has completed a round")

    def _meet(self, incident: Incident) -> None:
        if incident.kind is Kind.HANG:
            incident = attrs.evolve(incident, device=self._trainer())
        began_s = time.time()
        print(f"{incident.name}, for {incident.lasts_s:.0f} s", flush=True)
        how_much = ""
        match incident.kind:
            case Kind.HANG:
                file = task.hang_file(self._home.directory, incident.device)
                file.touch()
                self._wait_until(began_s + incident.lasts_s)
                file.unlink()
            case Kind.JUNK:
                with self._beside(incident.lasts_s) as poured:
                    self._wait_until(began_s + incident.lasts_s)
                how_much = f"{poured[0]:,.0f} messages a second"
            case Kind.REPLAY:
                say_again(self._home.broker, self._record)
                how_much = f"{len(self._record):,} messages in {time.time() - began_s:.1f} s"
                self._wait_until(began_s + incident.lasts_s)
            case Kind.REFUSAL:
                users = self._home.broker.users
                self._restart_broker(dict.fromkeys(users, secrets.token_hex(8)))
                self._wait_until(began_s + incident.lasts_s)
                self._restart_broker(users)
            case Kind.KILL:
                ran, process = self._running.pop(incident.device)
                ran.is_killed = True
                process.kill()
                self._wait_until(began_s + incident.lasts_s)
                self._start(incident.device)
        self.happened.append(Happened(incident=incident, began_s=began_s, ended_s=time.time(), how_much=how_much))

    def _start(self, name: str) -> None:
        process = self._home.start(name, once=False)
        ran = Ran(name=name, lines=process.lines)
        self._running[name] = ran, process
        self._joining.append(process)
        self.ran.append(ran)

    def _restart_broker(self, users: dict[str, str]) -> None:
        broker = self._home.broker
        broker.users = users
        broker.stop()
        broker.start()

    @contextmanager
    def _beside(self, lasts_s: float) -> Iterator[list[float]]:
        """Pour junk in a thread; afterwards the list holds the rate."""
        poured: list[float] = []
        topic = f"crowd/1/home/all/{NEIGHBOUR}"
        pouring = threading.Thread(target=lambda: poured.append(pour_junk(self._home.broker, topic, lasts_s)))
        pouring.start()
        try:
            yield poured
        finally:
            pouring.join()

    def _wait_until(self, until_s: float) -> None:
        """Wait, and look at the memory of all devices meanwhile. Raises `RuntimeError` if one has ended by itself."""
        while (left_s := until_s - time.time()) > 0:
            time.sleep(min(LOOK_S, left_s))
            for ran, process in self._running.values():
                if process.process.poll() is not None:
                    raise RuntimeError(f"{ran.name} has ended:\n" + "".join(ran.lines[-30:]))
                rss_bytes = psutil.Process(process.process.pid).memory_info().rss
                ran.rss_bytes.append((time.time(), rss_bytes))
