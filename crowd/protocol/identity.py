"""The identity of a device: an Ed25519 key of its own (RFC 8032), and the public keys of the cluster's members.

A key file is PKCS 8 in PEM, as `openssl genpkey -algorithm ed25519` writes it; a members file is TOML with one line
`name = "public key in base64"` for each device.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from crowd.config.toml import read_toml
from crowd.errors import BadConfig
from crowd.ports import Signer
from crowd.units import DeviceId, device_id


class Ed25519Signer(Signer):
    """A signer with this device's Ed25519 key; `members` must contain this device too, or it does not know its own
    heartbeat."""

    def __init__(self, private_key: Ed25519PrivateKey, members: Mapping[DeviceId, Ed25519PublicKey]) -> None:
        self._private_key = private_key
        self._members = dict(members)

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of `data`, 64 bytes."""
        return self._private_key.sign(data)

    def verify(self, device: DeviceId, data: bytes, signature: bytes) -> bool:
        public_key = self._members.get(device)
        if public_key is None:
            return False
        try:
            public_key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def is_member(self, device: DeviceId) -> bool:
        return device in self._members


class KeyedHashSigner(Signer):
    """A signer for simulations, whose key follows from this device's name and the cluster's `secret` (at most 64
    bytes).

    Whoever knows the secret can sign as any member. Signatures are as long as Ed25519's and cost a fiftieth of the
    time. `members` must contain this device too.
    """

    def __init__(self, device: DeviceId, members: Iterable[DeviceId], *, secret: bytes) -> None:
        self._keys = {member: hashlib.blake2b(member.encode(), key=secret).digest() for member in members}
        self._key = self._keys[device]

    def sign(self, data: bytes) -> bytes:
        """The keyed BLAKE2b hash of `data`, 64 bytes."""
        return hashlib.blake2b(data, key=self._key).digest()

    def verify(self, device: DeviceId, data: bytes, signature: bytes) -> bool:
        key = self._keys.get(device)
        return key is not None and hmac.compare_digest(hashlib.blake2b(data, key=key).digest(), signature)

    def is_member(self, device: DeviceId) -> bool:
        return device in self._keys


def generate_key() -> Ed25519PrivateKey:
    """A new random Ed25519 key."""
    return Ed25519PrivateKey.generate()


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write `key` to the new file `path`, readable by its owner alone. Raises `BadConfig` if the file exists or cannot
    be written."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise BadConfig(f"{path} exists and is not overwritten: move it away, or choose another name") from error
    except OSError as error:
        raise BadConfig(
            f"{path} cannot be written ({error.strerror}): choose a directory that you may write"
        ) from error
    with open(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)


def read_key(path: Path) -> Ed25519PrivateKey:
    """The key that `write_key` wrote. Raises `BadConfig` if `path` holds none or cannot be read."""
    mend = "give key_file the path of a file made by `crowd keys new`"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise BadConfig(f"{path} cannot be read ({error.strerror}): {mend}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadConfig(f"{path} holds no unencrypted private key in PEM: {mend}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadConfig(f"{path} holds a private key of another kind than Ed25519: {mend}")
    return key


def public_line(name: str, key: Ed25519PrivateKey) -> str:
    """The line that `key`'s device has in the members file. Raises `BadConfig` if `name` may not name a device."""
    try:
        device = device_id(name)
    except ValueError as error:
        raise BadConfig(str(error)) from error
    return f'{device} = "{base64.b64encode(key.public_key().public_bytes_raw()).decode()}"'


def read_members(path: Path) -> dict[DeviceId, Ed25519PublicKey]:
    """The public key of every member in the file `path`. Raises `BadConfig` if it holds none or cannot be read."""
    mend = "give each device one line, as `crowd keys show` prints it"
    try:
        table = read_toml(path)
    except BadConfig as error:
        raise BadConfig(f"{error}; {mend}") from error
    if not table:
        raise BadConfig(f"{path} names no device: {mend}")
    members: dict[DeviceId, Ed25519PublicKey] = {}
    names_by_key: dict[bytes, str] = {}
    for name, value in table.items():
        try:
            device, public_bytes = device_id(name), _public_bytes(value)
            members[device] = Ed25519PublicKey.from_public_bytes(public_bytes)
        except ValueError as error:
            raise BadConfig(f"{path}, {name!r}: {error}; {mend}") from error
        twin = names_by_key.setdefault(public_bytes, name)
        if twin != name:
            raise BadConfig(f"{path}: {twin} and {name} have the same key; make one for each with `crowd keys new`")
    return members


def read_signer(device: DeviceId, *, key_file: Path | None, members_file: Path | None) -> Ed25519Signer:
    """The identity of `device` by its files. Raises `BadConfig` if one is missing or of no use, or if they are not this
    device's."""
    if key_file is None or members_file is None:
        raise BadConfig(
            f"node {device!r}: key_file and members_file are missing; make a key with 'crowd keys new {device}'"
        )
    members = read_members(members_file)
    key = read_key(key_file)
    public_bytes = key.public_key().public_bytes_raw()
    owner = next((name for name, known in members.items() if known.public_bytes_raw() == public_bytes), None)
    if owner is not None and owner != device:
        raise BadConfig(
            f"the key in {key_file} is that of {owner!r} by {members_file}, and this device is called {device!r}: "
            "mend name or key_file in node.toml"
        )
    if device not in members:
        raise BadConfig(f"{members_file}: {device!r} is not in it; add the line of 'crowd keys show {key_file}'")
    if owner is None:
        raise BadConfig(
            f"{members_file}: the key of {device!r} is not that of {key_file}; "
            f"replace the line by that of 'crowd keys show {key_file}'"
        )
    return Ed25519Signer(key, members)


def ephemeral_signers(devices: Iterable[DeviceId]) -> dict[DeviceId, Ed25519Signer]:
    """Signers with keys that exist in this process only and know each other: for demonstrations."""
    keys = {device: generate_key() for device in devices}
    members = {device: key.public_key() for device, key in keys.items()}
    return {device: Ed25519Signer(key, members) for device, key in keys.items()}


def _public_bytes(value: object) -> bytes:
    """The 32 bytes of a public key in base64; raises `ValueError`."""
    if not isinstance(value, str):
        raise ValueError("a public key is a text in quotation marks")
    try:
        public_bytes = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the public key is no base64 ({error})") from error
    if len(public_bytes) != 32:
        raise ValueError(f"the public key has {len(public_bytes)} bytes instead of 32")
    return public_bytes
