import abc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from brokers import mqtt
from brokers.memory import InProcessBroker, MemoryBroker
from brokers.simulated.network import LinkSpec, Network
from crowd.ports import Broker
from crowd.units import DeviceId
from tests.support.mosquitto import Mosquitto
from tests.support.wire import Wire, wire_to


class Carrier(abc.ABC):
    """One adapter with a broker behind it, whose connections can be broken from outside."""

    @abc.abstractmethod
    async def broker(self, device: DeviceId) -> Broker:
        """The way of `device`, on a link of its own."""

    @abc.abstractmethod
    def cut(self, device: DeviceId) -> None:
        """Break the link of `device`."""

    @abc.abstractmethod
    def crash(self) -> None:
        """The broker dies without a word and comes back with an empty memory."""


class MemoryCarrier(Carrier):
    def __init__(self) -> None:
        self._hub = InProcessBroker()

    async def broker(self, device: DeviceId) -> Broker:
        return MemoryBroker(self._hub, device, cluster="home")

    def cut(self, device: DeviceId) -> None:
        self._hub.drop(device)

    def crash(self) -> None:
        self._hub.crash()


class NetworkCarrier(Carrier):
    def __init__(self) -> None:
        self._network = Network(seed=0)

    async def broker(self, device: DeviceId) -> Broker:
        spec = LinkSpec(uplink_bytes_s=10**9, downlink_bytes_s=10**9)
        return self._network.broker(device, spec, cluster="home")

    def cut(self, device: DeviceId) -> None:
        self._network.drop(device)

    def crash(self) -> None:
        self._network.crash()


class MqttCarrier(Carrier):
    def __init__(self, mosquitto: Mosquitto, exits: AsyncExitStack) -> None:
        self._mosquitto = mosquitto
        self._exits = exits
        self.wires: dict[DeviceId, Wire] = {}

    async def broker(self, device: DeviceId) -> Broker:
        if device not in self.wires:
            self.wires[device] = await self._exits.enter_async_context(wire_to(self._mosquitto.port))
        return mqtt.from_url(f"mqtt://127.0.0.1:{self.wires[device].port}", cluster="home", device=device)

    def cut(self, device: DeviceId) -> None:
        self.wires[device].cut()

    def crash(self) -> None:
        self._mosquitto.kill()
        self._mosquitto.start()


@asynccontextmanager
async def mqtt_carrier() -> AsyncIterator[MqttCarrier]:
    with Mosquitto() as mosquitto:
        async with AsyncExitStack() as exits:
            yield MqttCarrier(mosquitto, exits)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "network", "mqtt"])
async def carrier(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Carrier]:
    match request.param:
        case "memory":
            yield MemoryCarrier()
        case "network":
            yield NetworkCarrier()
        case _:
            async with mqtt_carrier() as carrier:
                yield carrier


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as broker:
        yield broker
