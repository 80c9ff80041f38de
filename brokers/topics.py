"""`Address` ↔ MQTT topic (docs/protocol.md#topics), pure.

Layout: `Topics` for one cluster (`topic` to publish to, `pattern` to subscribe to, `parse` for what arrived) and
`matches`, which says of two addresses what a broker says of a pattern and a topic.
"""

import re
from typing import assert_never

import attrs

from crowd.errors import MalformedMessage
from crowd.units import Address, Channel, DeviceId, is_identifier

_VERSION = "1"
_ANY = "+"
_EVERYBODY = "all"
_CHUNK = re.compile(r"0|[1-9][0-9]{0,9}")
_OF_NODE = {
    channel.value: channel
    for channel in (
        Channel.STATUS,
        Channel.INFO,
        Channel.PROFILE,
        Channel.ACK,
        Channel.RESULT,
        Channel.BEAT,
    )
}


def matches(pattern: Address, address: Address) -> bool:
    """Whether whoever subscribed to `pattern` receives what is published to `address`."""
    if pattern.channel is not address.channel:
        return False
    if pattern.channel is Channel.BLOB and pattern.destination is None and address.destination is not None:
        return False
    return (
        pattern.source in (None, address.source)
        and pattern.destination in (None, address.destination)
        and pattern.name in (None, address.name)
        and pattern.chunk in (None, address.chunk)
    )


@attrs.frozen
class Topics:
    """The topic tree of one cluster, `crowd/1/<cluster>/…`; `parse(topic(a)) == a` for every complete address `a`."""

    cluster: str = attrs.field()

    @cluster.validator
    def _names_one_level(self, _: object, cluster: str) -> None:
        if not is_identifier(cluster):
            raise ValueError(f"{cluster!r} is no cluster name: use a-z, 0-9 and inner hyphens, at most 48 characters")

    def topic(self, address: Address) -> str:
        """The topic to publish to for `address`; `ValueError` if a field is missing, superfluous or no identifier."""
        levels = self._levels(address)
        if None in levels:
            raise ValueError(f"{address} is a pattern: nothing can be published to it")
        return self._join(address, levels)

    def pattern(self, address: Address) -> str:
        """The topic filter to subscribe to for the pattern `address`; `ValueError` if a field is superfluous or no
        identifier."""
        return self._join(address, [_ANY if level is None else level for level in self._levels(address)])

    def parse(self, topic: str) -> Address:
        """The address that `topic` stands for; `MalformedMessage` if it is not of this cluster and this version."""
        root, version, cluster, *levels = [*topic.split("/"), "", ""]
        address = _address(levels[:-2]) if (root, version, cluster) == ("crowd", _VERSION, self.cluster) else None
        if address is None:
            raise MalformedMessage(f"topic {topic!r} is none of cluster {self.cluster!r}")
        return address

    def _levels(self, address: Address) -> list[str | None]:
        used: list[str | None]
        match address.channel:
            case Channel.STATUS | Channel.INFO | Channel.PROFILE | Channel.ACK | Channel.RESULT | Channel.BEAT:
                used = ["node", address.source, address.channel.value]
            case Channel.ALL:
                used = ["all", address.source]
            case Channel.TO:
                used = ["to", address.destination, address.source]
            case Channel.BLOB:
                if address.destination == _EVERYBODY:
                    raise ValueError(f"no device may be called {_EVERYBODY!r}: {address}")
                chunk = None if address.chunk is None else str(address.chunk)
                used = ["blob", address.destination or _EVERYBODY, address.source, address.name, chunk]
            case _:
                assert_never(address.channel)
        return used

    def _join(self, address: Address, levels: list[str | None]) -> str:
        topic = "/".join(["crowd", _VERSION, self.cluster, *(level or "" for level in levels)])
        given = attrs.astuple(address, recurse=False)[1:]
        parsed = _address([level or "" for level in levels], wildcards=True)
        if parsed is None or attrs.astuple(parsed, recurse=False)[1:] != given:
            raise ValueError(f"{address} has a field that its channel does not use, or one that is no identifier")
        return topic


def _address(levels: list[str], *, wildcards: bool = False) -> Address | None:
    """The address with these levels below the cluster's, if there is one."""

    def identifier(level: str) -> bool:
        return is_identifier(level) or (wildcards and level == _ANY)

    def device(level: str) -> DeviceId | None:
        return None if level == _ANY else DeviceId(level)

    match levels:
        case ["node", source, word] if identifier(source) and word in _OF_NODE:
            return Address(channel=_OF_NODE[word], source=device(source))
        case ["all", source] if identifier(source):
            return Address(channel=Channel.ALL, source=device(source))
        case ["to", destination, source] if identifier(destination) and identifier(source):
            return Address(channel=Channel.TO, source=device(source), destination=device(destination))
        case ["blob", destination, source, name, chunk] if (
            identifier(destination)
            and identifier(source)
            and identifier(name)
            and (_CHUNK.fullmatch(chunk) or (wildcards and chunk == _ANY))
        ):
            return Address(
                channel=Channel.BLOB,
                source=device(source),
                destination=None if destination == _EVERYBODY else device(destination),
                name=None if name == _ANY else name,
                chunk=None if chunk == _ANY else int(chunk),
            )
        case _:
            return None
