"""A TCP relay in front of a server: it can be cut, it counts what crosses it, and keeps what clients sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream


class Wire:
    """Between the clients of `port` and the server behind it."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.up_data = bytearray()
        self.down_bytes = 0
        self._server_port = server_port
        self._connections: list[anyio.CancelScope] = []

    def cut(self) -> None:
        """End all connections as an unplugged cable does in the end: without a word of MQTT."""
        for connection in self._connections:
            connection.cancel()

    @property
    def up_bytes(self) -> int:
        return len(self.up_data)

    async def relay(self, client: SocketStream) -> None:
        with anyio.CancelScope() as connection:
            self._connections.append(connection)
            async with client:
                try:
                    server = await anyio.connect_tcp("127.0.0.1", self._server_port)
                except OSError:
                    return
                async with server, anyio.create_task_group() as tasks:
                    tasks.start_soon(self._copy, client, server, True)
                    await self._copy(server, client, False)
                    tasks.cancel_scope.cancel()

    async def _copy(self, source: SocketStream, target: SocketStream, up: bool) -> None:
        try:
            while True:
                data = await source.receive()
                if up:
                    self.up_data += data
                else:
                    self.down_bytes += len(data)
                await target.send(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.aclose()


@asynccontextmanager
async def wire_to(server_port: int) -> AsyncIterator[Wire]:
    """A wire to the server at `server_port` on this machine."""
    wire = Wire(server_port)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        wire.port = listener.extra(SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, wire.relay)
            try:
                yield wire
            finally:
                tasks.cancel_scope.cancel()
