"""A real Mosquitto for tests and scripts: its own port, its own directory, ended by its own process id.

with Mosquitto() as broker:
    ... broker.url ...
    broker.kill()       # as by `kill -9`: nothing is saved
    broker.start()      # again, on the same port
"""

import shutil
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.certificates import Certificates

START_TIMEOUT_S = 10.0
_ATTEMPTS = 5


class Mosquitto:
    """A broker on `host`, stopped until `start` or `with`.

    `users` maps names to passwords; without users anybody may connect. `acl` is the text of an ACL file. With
    `certificates` it speaks TLS only. `settings` are further lines of its configuration. What is changed in `users`,
    `acl` and `settings` later counts from the next start on.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        acl: str = "",
        certificates: Certificates | None = None,
        settings: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self.port = 0
        self.users = dict(users or {})
        self.acl = acl
        self._certificates = certificates
        self.settings = tuple(settings)
        self._directory = Path(tempfile.mkdtemp(prefix="mosquitto-"))
        self._process: subprocess.Popen[str] | None = None
        self._log: deque[str] = deque(maxlen=200)

    @property
    def url(self) -> str:
        return f"{'mqtt' if self._certificates is None else 'mqtts'}://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self._log)

    def start(self) -> None:
        """Returns when it accepts connections; after `kill` or `stop`, on the same port as before."""
        fixed = self.port
        for _ in range(_ATTEMPTS):
            self.port = fixed or _free_port(self.host)
            if self._run():
                return
        raise RuntimeError(f"mosquitto does not start:\n{self.log}")

    def signal(self, number: int) -> None:
        """Send it a signal: SIGSTOP makes it hang, SIGCONT go on."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self) -> None:
        """End it in its own way."""
        if self._process is not None:
            self._process.terminate()
            self._reap()

    def close(self) -> None:
        """End it and remove its directory."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> bool:
        """Whether it came up; it does not if another process was faster to take the port."""
        command = [shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin") or "mosquitto"]
        self._process = process = subprocess.Popen(
            [*command, "-c", str(self._configuration())], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        settled = threading.Event()
        running = threading.Event()

        def drain() -> None:
            assert process.stderr is not None
            with process.stderr as lines:
                for line in lines:
                    self._log.append(line.rstrip())
                    if line.rstrip().endswith(" running"):
                        running.set()
                        settled.set()
            settled.set()

        self._reader = threading.Thread(target=drain, daemon=True)
        self._reader.start()
        settled.wait(START_TIMEOUT_S)
        if running.is_set():
            return True
        self.kill()
        return False

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._reader.join()
        self._process = None

    def _configuration(self) -> Path:
        lines = [
            f"listener {self.port} {self.host}",
            "user root",  # ignored for others: root would drop to a user who cannot read this directory
            "persistence false",
            "log_dest stderr",
            f"allow_anonymous {'false' if self.users else 'true'}",
        ]
        if self.users:
            lines.append(f"password_file {self._passwords()}")
        if self.acl:
            lines.append(f"acl_file {self._write('acl', self.acl)}")
        if self._certificates is not None:
            lines += [
                f"certfile {self._write('server.pem', self._certificates.server_certificate.decode())}",
                f"keyfile {self._write('server.key', self._certificates.server_key.decode())}",
            ]
        return self._write("mosquitto.conf", "\n".join([*lines, *self.settings]) + "\n")

    def _passwords(self) -> Path:
        path = self._write("passwords", "".join(f"{user}:{password}\n" for user, password in self.users.items()))
        subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True)
        return path

    def _write(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
