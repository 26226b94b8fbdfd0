"""As what the program is known to the brokers, and how it reaches them."""

from app.kafka.client_config import ClientPolicy
from app.settings.root import Settings


def client_policy(settings: Settings, role: str = "") -> ClientPolicy:
    """The cluster of these settings. role: tells the clients of one instance apart in the brokers' logs."""
    return ClientPolicy(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id="-".join(("inference-worker", settings.instance_id, *([role] if role else []))),
        security=settings.kafka.security.properties(),
        extra=settings.kafka.client,
    )


def worker_client(settings: Settings, slot: int = 0) -> ClientPolicy:
    """A worker's. slot: which of `worker.processes`."""
    return client_policy(settings, str(slot) if settings.worker.processes > 1 else "")
