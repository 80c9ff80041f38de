"""A device's key file, the members file, and what a signature is worth."""

import base64
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from crowd.errors import BadConfig
from crowd.protocol.identity import (
    Ed25519Signer,
    KeyedHashSigner,
    ephemeral_signers,
    generate_key,
    public_line,
    read_key,
    read_members,
    read_signer,
    write_key,
)
from crowd.units import DeviceId, device_id

GATEWAY, CAMERA, STRANGER = device_id("gateway"), device_id("camera"), device_id("stranger")
A_KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.key"
    write_key(path, generate_key())
    return path


def keyed_hash_signers(devices: list[DeviceId]) -> dict[DeviceId, KeyedHashSigner]:
    return {device: KeyedHashSigner(device, devices, secret=b"of the cluster") for device in devices}


both_kinds = pytest.mark.parametrize("make_signers", [ephemeral_signers, keyed_hash_signers])


@both_kinds
def test_a_members_signature_is_verified_by_every_other_member(make_signers) -> None:  # type: ignore[no-untyped-def]
    signers = make_signers([GATEWAY, CAMERA])
    assert len(signers[GATEWAY].sign(b"data")) == 64
    assert signers[CAMERA].verify(GATEWAY, b"data", signers[GATEWAY].sign(b"data"))


@both_kinds
@pytest.mark.parametrize(
    ("device", "data", "change"),
    [
        (CAMERA, b"data", lambda signature: signature),
        (GATEWAY, b"datA", lambda signature: signature),
        (GATEWAY, b"data", lambda signature: bytes([signature[0] ^ 1]) + signature[1:]),
        (GATEWAY, b"data", lambda signature: signature[:-1]),
        (GATEWAY, b"data", lambda signature: b""),
        (STRANGER, b"data", lambda signature: signature),
    ],
    ids=["another member's", "other data", "a flipped bit", "too short", "none", "no member"],
)
def test_any_other_signature_is_worth_nothing(make_signers, device, data, change) -> None:  # type: ignore[no-untyped-def]
    signers = make_signers([GATEWAY, CAMERA])
    assert not signers[CAMERA].verify(device, data, change(signers[GATEWAY].sign(b"data")))


def test_another_clusters_keyed_hash_is_worth_nothing() -> None:
    ours, theirs = (KeyedHashSigner(GATEWAY, [GATEWAY], secret=secret) for secret in (b"ours", b"theirs"))
    assert not ours.verify(GATEWAY, b"data", theirs.sign(b"data"))


def test_a_written_key_is_read_back_and_signs_the_same(tmp_path: Path) -> None:
    key = generate_key()
    write_key(tmp_path / "a.key", key)
    assert read_key(tmp_path / "a.key").sign(b"data") == key.sign(b"data")


def test_a_key_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "gateway.key"
    program = (
        "import os, pathlib; os.umask(0); from crowd.protocol.identity import generate_key, write_key;"
        f"write_key(pathlib.Path({str(path)!r}), generate_key())"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_is_never_overwritten(key_file: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(BadConfig, match=r"gateway\.key exists and is not overwritten: move it away"):
        write_key(key_file, generate_key())
    assert key_file.read_bytes() == before


def test_a_key_cannot_be_written_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"cannot be written \(No such file or directory\)"):
        write_key(tmp_path / "nowhere" / "a.key", generate_key())


def test_a_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"missing\.key cannot be read .*`crowd keys new`"):
        read_key(tmp_path / "missing.key")


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"\xff\x00", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END-----\n"]
)
def test_a_file_without_a_key_is_bad_config(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.key"
    path.write_bytes(content)
    with pytest.raises(BadConfig, match=r"bad\.key holds no unencrypted private key"):
        read_key(path)


def test_a_key_of_another_kind_is_bad_config(tmp_path: Path) -> None:
    path = tmp_path / "ec.key"
    path.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(BadConfig, match="another kind than Ed25519"):
        read_key(path)


def test_an_encrypted_key_is_bad_config(tmp_path: Path) -> None:
    path = tmp_path / "locked.key"
    path.write_bytes(
        generate_key().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(BadConfig, match="unencrypted"):
        read_key(path)


def test_the_public_lines_of_all_devices_make_a_members_file(tmp_path: Path) -> None:
    keys = {GATEWAY: generate_key(), CAMERA: generate_key()}
    path = tmp_path / "members.toml"
    path.write_text("\n".join(public_line(name, key) for name, key in keys.items()))
    members = read_members(path)
    assert members.keys() == keys.keys()
    for device, key in keys.items():
        assert Ed25519Signer(keys[GATEWAY], members).verify(device, b"data", key.sign(b"data"))


def test_a_device_whose_files_are_not_its_own_is_told_which_to_mend(tmp_path: Path) -> None:
    keys = {GATEWAY: generate_key(), CAMERA: generate_key()}
    write_key(tmp_path / "gateway.key", keys[GATEWAY])
    write_key(tmp_path / "new.key", generate_key())
    members = tmp_path / "members.toml"
    members.write_text("\n".join(public_line(name, key) for name, key in keys.items()))

    def read(name: str, key_file: str) -> Ed25519Signer:
        return read_signer(device_id(name), key_file=tmp_path / key_file, members_file=members)

    assert read("gateway", "gateway.key").verify(GATEWAY, b"data", keys[GATEWAY].sign(b"data"))
    for name in ("camera", "attic"):
        with pytest.raises(BadConfig, match=f"is that of 'gateway' by .*called '{name}': mend name or key_file"):
            read(name, "gateway.key")
    with pytest.raises(BadConfig, match=r"the key of 'gateway' is not that of .*new\.key; replace the line"):
        read("gateway", "new.key")
    with pytest.raises(BadConfig, match=r"'attic' is not in it; add the line of 'crowd keys show .*new\.key'"):
        read("attic", "new.key")


def test_a_public_line_needs_a_name_for_a_device() -> None:
    with pytest.raises(BadConfig, match="'My Phone' is no device ID"):
        public_line("My Phone", generate_key())


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "names no device"),
        ("gateway = \n", "at line 1"),
        (f'gateway = "{A_KEY}"\ngateway = "{A_KEY}"\n', "at line 2"),
        ("gateway = 5", "'gateway': a public key is a text"),
        ("[gateway]\nkey = 1", "'gateway': a public key is a text"),
        ('gateway = "!!"', "'gateway': the public key is no base64"),
        ('gateway = "ÄÖ=="', "'gateway': "),
        ('gateway = "AAAA"', "'gateway': the public key has 3 bytes instead of 32"),
        (f'Gateway = "{A_KEY}"', "'Gateway': 'Gateway' is no device ID"),
        (f'gateway = "{A_KEY}"\ncamera = "{A_KEY}"', "gateway and camera have the same key"),
    ],
)
def test_a_bad_members_file_says_what_is_wrong_and_how_to_mend_it(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "members.toml"
    path.write_text(content)
    with pytest.raises(BadConfig) as caught:
        read_members(path)
    assert str(caught.value).startswith(str(path))
    assert what in str(caught.value)
    assert "crowd keys" in str(caught.value)


def test_a_members_file_that_is_no_text_is_bad_config(tmp_path: Path) -> None:
    path = tmp_path / "members.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="no valid TOML"):
        read_members(path)
