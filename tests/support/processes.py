"""Real `crowd node` processes for tests: `NodeProcess` (one), `Home` (the devices of one household)."""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crowd.protocol.identity import generate_key, public_line, write_key
from tests.support.mosquitto import Mosquitto

CROWD = str(Path(sys.executable).with_name("crowd"))
PATIENCE_S = 180.0
NAMES = ("attic", "cellar", "kitchen")


class NodeProcess:
    """One `crowd node` (without `once` it stays when the run is over), whose log lines can be waited for."""

    def __init__(self, name: str, directory: Path, *, once: bool = True) -> None:
        self.name = name
        self.result = directory / f"{name}.json"
        self.lines: list[str] = []
        self.heard_s: list[float] = []
        """When each of them came, by `time.monotonic`."""
        self._unread: queue.Queue[str | None] = queue.Queue()
        command = [CROWD, "node", "--config", str(directory / f"{name}.toml"), "--json", str(self.result)]
        self.process = subprocess.Popen(
            [*command, "--once"] if once else command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "400"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard_s.append(time.monotonic())
            self.lines.append(line)
            self._unread.put(line)
        self._unread.put(None)

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        """The next line that is `wanted`, if it comes before all patience is spent, however much else is said."""
        until_s = time.monotonic() + PATIENCE_S
        try:
            while (line := self._unread.get(timeout=max(0.0, until_s - time.monotonic()))) is not None:
                if wanted(line):
                    return line
        except queue.Empty:
            pass
        raise AssertionError(f"{self.name} did not say it:\n" + "".join(self.lines[-30:]))

    def wait_for_round(self, number: int) -> None:
        """That one or a later: whoever is late fetches a state and leaves rounds out."""

        def has_come(line: str) -> bool:
            told = re.search(r"round_complete.* round=(\d+)", line)
            return told is not None and int(told[1]) >= number

        self.wait_for(has_come)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def finish(self) -> dict[str, object]:
        """Exit code 0, and the run that it wrote."""
        assert self.process.wait(timeout=PATIENCE_S) == 0, "".join(self.lines[-30:])
        self.close()
        run: dict[str, object] = json.loads(self.result.read_text())["runs"][0]
        return run

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=PATIENCE_S)
        self._reader.join(timeout=PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Home:
    """Devices with keys, and a broker; each has its part of a built-in task, another one brings its own data. Whom the
    broker has among its users logs in as such. `train` are further lines of every `node.toml`, for its section of that
    name; without `members_min` a run begins when all are there."""

    def __init__(
        self,
        directory: Path,
        broker: Mosquitto,
        task: str,
        *,
        names: Sequence[str] = NAMES,
        train: str = "",
        members_min: int | None = None,
    ) -> None:
        self.directory = directory
        self.broker = broker
        self.started: list[NodeProcess] = []
        """In order of time."""
        lines = []
        for name in names:
            key = generate_key()
            write_key(directory / f"{name}.key", key)
            lines.append(public_line(name, key))
        (directory / "members.toml").write_text("\n".join(lines) + "\n")
        for part, name in enumerate(names):
            partition = "subject" if task == "watch" else "dirichlet"
            data = f'[data]\npartition = "{partition}"\npart = {part}\nparts = {len(names)}\n'
            (directory / f"{name}.toml").write_text(
                f'[node]\nname = "{name}"\ncluster = "home"\nbroker = "{broker.url}"\nkey_file = "{name}.key"\n'
                f'members_file = "members.toml"\nstate_dir = "state-{name}"\n{self._user(name)}'
                f'[train]\ntask = "{task}"\nmembers_min = {members_min or len(names)}\n{train}'
                + ("" if ":" in task else data)
            )

    def _user(self, name: str) -> str:
        """The lines of a `node.toml` by which its device logs in."""
        if name not in self.broker.users:
            return ""
        (self.directory / f"{name}.password").write_text(self.broker.users[name])
        return f'username = "{name}"\npassword_file = "{name}.password"\n'

    def start(self, name: str, *, once: bool = True) -> NodeProcess:
        process = NodeProcess(name, self.directory, once=once)
        self.started.append(process)
        return process

    def forget_checkpoints(self) -> None:
        """Of devices that are off: the next one that is started has none to go on from."""
        for directory in self.directory.glob("state-*/checkpoint"):
            shutil.rmtree(directory)

    def close(self) -> None:
        for process in self.started:
            process.close()

    def write_logs(self) -> None:
        """What each process has said, in the order in which they were started."""
        for place, process in enumerate(self.started):
            (self.directory / f"{place:02}-{process.name}.log").write_text("".join(process.lines))
