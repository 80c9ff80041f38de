"""The endpoint of an MQTT broker, and in one clear line why it cannot be reached. Knows no MQTT library.

Layout: `Endpoint` (with the errors of connecting to it) and `from_url`, which makes one.
"""

import ssl
from urllib.parse import urlsplit

import attrs

from crowd.errors import BadConfig, BrokerLost, BrokerRefused

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_HOW = "write mqtt://HOST:PORT or mqtts://HOST:PORT"


@attrs.frozen(kw_only=True)
class Endpoint:
    """The address of one broker, and the credentials to show to it."""

    host: str
    port: int
    username: str | None
    password: str | None = attrs.field(repr=False)
    tls: ssl.SSLContext | None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{host}:{self.port}"

    @property
    def who(self) -> str:
        return "a client without a username" if self.username is None else f"username {self.username!r}"

    def out_of_reach(self, reason: str) -> BrokerLost:
        return BrokerLost(f"cannot reach {self.url}: {reason}")

    def not_connected(self, cause: BaseException | None) -> BrokerRefused | BrokerLost:
        """The error for a connection that did not come about, by its `cause`; `None` if no MQTT answer came."""
        match cause:
            case ssl.SSLCertVerificationError():
                return self._not_trusted(cause)
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return self.out_of_reach("it hung up; is the scheme (mqtt or mqtts) right?")
            case ssl.SSLError():
                return BrokerRefused(
                    f"TLS with broker {self.url} failed ({cause.reason or cause}): is this its port for mqtts?"
                )
            case ConnectionRefusedError():
                return self.out_of_reach("connection refused; is the broker running?")
            case ConnectionResetError():
                return self.out_of_reach("it hung up; is the scheme (mqtt or mqtts) right?")
            case TimeoutError():
                return self.out_of_reach(
                    "no answer; is an MQTT broker running there, and is the scheme (mqtt or mqtts) right?"
                )
            case OSError():
                return self.out_of_reach(f"{(cause.strerror or str(cause)).lower()}; is the broker running?")
            case _:
                return self.out_of_reach("it does not answer as an MQTT broker; is this the right port and scheme?")

    def takes_none_of(self, size_bytes: int) -> BrokerRefused:
        """The error for a broker that takes no message of `size_bytes`, and did not say so in its CONNACK."""
        return BrokerRefused(
            f"broker {self.url} takes no message of {size_bytes:,} bytes: raise its message_size_limit, or set "
            "max_packet_size instead, which it tells its clients"
        )

    def denied(self, topic: str) -> str:
        """The line for an access list that denies publishing to `topic`."""
        return (
            f"broker {self.url} denies {self.who} publishing to {topic}: allow writing it in the broker's access list"
        )

    def _not_trusted(self, cause: ssl.SSLCertVerificationError) -> BrokerRefused:
        reason = cause.verify_message.rstrip(".")
        match cause.verify_code:
            case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
                what = f"for another name ({reason}): write the name in its certificate as the host in broker = ..."
            case 10:  # X509_V_ERR_CERT_HAS_EXPIRED
                what = "that has expired: renew it, or set this device's clock, if that is wrong"
            case 9:  # X509_V_ERR_CERT_NOT_YET_VALID
                what = "that is not yet valid: set this device's clock, or the one where it was made"
            case _:
                what = f"that is not trusted ({reason}): set ca_file to the certificate of its authority"
        return BrokerRefused(f"broker {self.url} shows a certificate {what}")

    def hung_up(self, said: str) -> BrokerRefused | BrokerLost:
        """The error for a broker that closed the connection instead of answering CONNECT, by what the library `said`
        of it."""
        if "CERTIFICATE_REQUIRED" in said:  # the alert of TLS 1.3 (RFC 8446, section 6.2)
            return BrokerRefused(
                f"broker {self.url} wants a certificate of its clients, and devices have none: let them log in by name "
                "and password (require_certificate false in mosquitto.conf)"
            )
        return self.out_of_reach(
            "it hung up without an answer; is the scheme (mqtt or mqtts) right, and may more clients connect "
            "(max_connections)?"
        )

    def refused(self, reason: str) -> BrokerRefused | BrokerLost:
        """The error for the `reason` of a CONNACK, the name of its reason code (MQTT 5, section 3.2.2.2)."""
        match reason:
            case "Bad user name or password" | "Not authorized":
                mend = "mend username and password_file in node.toml, or add the user to the broker's password file"
            case "Server unavailable" | "Server busy" | "Quota exceeded" | "Connection rate exceeded":
                return self.out_of_reach(f"{reason.lower()}; try again later")
            case "QoS not supported" | "Retain not supported":
                mend = "allow retained messages and QoS 1 in the broker's configuration"
            case _:
                mend = "see the broker's log"
        return BrokerRefused(f"broker {self.url} refused {self.who}: {reason.lower()}; {mend}")


def from_url(
    url: str, *, username: str | None = None, password: str | None = None, ca_file: str | None = None
) -> Endpoint:
    """The endpoint at `mqtt://host[:port]` or, with TLS, `mqtts://host[:port]`; nothing is connected.

    `ca_file` holds the certificates (PEM) to trust; without it those of the system are. Raises `BadConfig` for a URL or
    a file that cannot be used.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadConfig(f"broker {url!r}: {error}; {_HOW}") from error
    if parts.username is not None or parts.password is not None:
        raise BadConfig("the broker's URL holds credentials: write them as username and password_file in node.toml")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query or port == 0:
        raise BadConfig(f"broker {url!r}: {_HOW}")
    encrypted = parts.scheme == "mqtts"
    if ca_file is not None and not encrypted:
        raise BadConfig(f"broker {url!r} does not use TLS, but ca_file is set: write mqtts://, or leave ca_file out")
    return Endpoint(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        username=username,
        password=password,
        tls=_tls(ca_file) if encrypted else None,
    )


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise BadConfig(f"ca_file {ca_file!r} holds no certificate in PEM form") from error
    except OSError as error:
        raise BadConfig(f"ca_file {ca_file!r} cannot be read: {error.strerror or error}") from error
