from pathlib import Path

import pytest

from brokers.endpoint import from_url
from crowd.errors import BadConfig, BrokerLost, BrokerRefused


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("mqtt://broker.local", "mqtt://broker.local:1883"),
        ("mqtt://broker.local:2000/", "mqtt://broker.local:2000"),
        ("mqtts://broker.local", "mqtts://broker.local:8883"),
        ("mqtt://[::1]:1883", "mqtt://[::1]:1883"),
    ],
)
def test_a_url_names_host_and_port_with_the_usual_port_as_default(url: str, canonical: str) -> None:
    assert from_url(url).url == canonical


@pytest.mark.parametrize(
    "url",
    [
        "broker.local",
        "http://broker.local",
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:70000",
        "mqtt://h:x",
        "mqtt://h/x",
        "mqtt://[:1",
    ],
)
def test_a_bad_url_is_bad_configuration_and_says_how_to_write_it(url: str) -> None:
    with pytest.raises(BadConfig, match="write mqtt://HOST:PORT"):
        from_url(url)


def test_credentials_in_the_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadConfig, match="password_file") as caught:
        from_url("mqtt://anna:secret@broker.local")
    assert "secret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(from_url("mqtt://broker.local", username="anna", password="secret"))


def test_a_missing_ca_file_is_bad_configuration(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"none\.pem.*No such file"):
        from_url("mqtts://broker.local", ca_file=str(tmp_path / "none.pem"))


def test_a_ca_file_without_a_certificate_is_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(BadConfig, match="no certificate in PEM form"):
        from_url("mqtts://broker.local", ca_file=str(tmp_path / "ca.pem"))


def test_a_ca_file_that_would_be_ignored_is_bad_configuration(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="write mqtts://"):
        from_url("mqtt://broker.local", ca_file=str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("Not authorized", BrokerRefused),
        ("Bad user name or password", BrokerRefused),
        ("Banned", BrokerRefused),
        ("Server busy", BrokerLost),
    ],
)
def test_only_a_lasting_refusal_is_the_users_to_mend(reason: str, error: type[Exception]) -> None:
    refusal = from_url("mqtt://broker.local", username="anna").refused(reason)
    assert type(refusal) is error
    assert "mqtt://broker.local:1883" in str(refusal)
    assert reason.lower() in str(refusal)
