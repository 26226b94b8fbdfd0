"""The security of the cluster, in the words of the monitor's library."""

import ssl
from typing import Any

from app.errors import BadSettings
from app.settings.root import Settings


def stream_credentials(settings: Settings) -> dict[str, Any]:
    """For its settings, secrets in the clear. Raises BadSettings for a mechanism that it does not know."""
    security = settings.kafka.security
    if security.mechanism == "OAUTHBEARER":
        raise BadSettings(
            "kafka.security.mechanism OAUTHBEARER is not supported by the monitor: use another one for it"
        )
    if security.protocol == "PLAINTEXT":
        return {}
    from faust import SASLCredentials, SSLCredentials  # noqa: PLC0415 - the extra
    from faust.types.auth import SASLMechanism  # noqa: PLC0415

    context = None
    if security.protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=str(security.ca_file) if security.ca_file else None)
        if security.cert_file is not None:
            context.load_cert_chain(security.cert_file, security.key_file, security.secret("key_password"))
    if security.mechanism is None:
        return {"broker_credentials": SSLCredentials(context)}
    return {
        "broker_credentials": SASLCredentials(
            mechanism=SASLMechanism(security.mechanism),
            username=security.username,
            password=security.secret("password"),
            ssl_context=context,
        )
    }
