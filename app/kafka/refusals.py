"""Why a broker could not be reached, in words that tell: the client's own say "transport failure" for nearly all.

The telling reason comes through the error callback or, when the broker just hangs up, only through the client's
log. Certificates that were refused are looked at once more with Python's TLS, because the client always blames
the authority, a wrong host name included.
"""

import logging
import re
import socket
import ssl
from collections.abc import Mapping

from confluent_kafka import KafkaError

LOOK_AGAIN_S = 3.0

# In the order in which they say more than a time-out does.
_TELLING = (
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - the client's names
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._SSL,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
)
_CERTAIN = frozenset(_TELLING[:3])  # asking again would only be refused again
_HINTS = {
    # also if there is one: the client does not send a certificate from an authority the broker did not name
    "certificate required": "the broker wants a client certificate from an authority it trusts: cert_file and key_file",
    "alert bad certificate": "the broker does not accept our cert_file",
    "alert unknown ca": "the broker does not trust who signed our cert_file",
    "PLAINTEXT broker listener": "set kafka.security.protocol to what this listener speaks",
    "Unsupported SASL mechanism": "set kafka.security.mechanism to one of those",
    "invalid credentials": "check kafka.security.username and its password",
    "Failed to acquire SASL OAUTHBEARER token": "check kafka.security.oauth_token_url, oauth_client_id and its secret",
    "Disconnected": "the broker hung up: set kafka.security.protocol to what this listener speaks",
}


class Refusals(logging.Handler):
    """Collects what one client reports of its connections: pass `error` as error_cb, and `log` as logger."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[KafkaError] = []
        self._hung_up: str | None = None
        self.log = logging.Logger("librdkafka-checks")  # noqa: LOG001 - private: nobody else is to hear it
        self.log.addHandler(self)

    def error(self, error: KafkaError) -> None:
        """For error_cb."""
        self.errors.append(error)

    def emit(self, record: logging.LogRecord) -> None:
        """For the client's log; only it says that a broker closed the connection."""
        _, _, text = record.getMessage().partition("]: ")
        if "Disconnected" in text:
            self._hung_up = text

    @property
    def certain(self) -> bool:
        """Whether another attempt would end as this one did."""
        return any(error.code() in _CERTAIN for error in self.errors)

    def reason(self, security: Mapping[str, str]) -> str:
        """The most telling of what was reported. Connects once more if a certificate was refused."""
        text = next(
            (f"{error.name()}: {error.str()}" for code in _TELLING for error in self.errors if error.code() == code),
            self._hung_up or "nothing answered",
        )
        if "certificate verify failed" in text and (judgement := _judged_again(text, security)):
            return f"_SSL: certificate verify failed: {judgement}"
        hint = next((hint for sign, hint in _HINTS.items() if sign in text), None)
        return f"{text} ({hint})" if hint else text


def _judged_again(text: str, security: Mapping[str, str]) -> str | None:
    """What OpenSSL has against the certificate of the broker in this message; None if it does not say."""
    address = re.search(r"://\[?([^/]+?)\]?:(\d+)/", text)
    if address is None:
        return None
    host, port = address[1], int(address[2])
    try:
        context = ssl.create_default_context(cafile=security.get("ssl.ca.location"))
        with (
            socket.create_connection((host, port), LOOK_AGAIN_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as exc:
        return f"{exc.verify_message.rstrip('.')} ({host}:{port}; authorities: {_authorities(security)})"
    except (OSError, ValueError):
        return None


def _authorities(security: Mapping[str, str]) -> str:
    return security.get("ssl.ca.location", "the system's, as kafka.security.ca_file is not set")
