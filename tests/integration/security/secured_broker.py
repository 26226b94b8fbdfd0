"""A broker that trusts nobody: four ways in, and nothing is allowed that was not granted.

SCRAM, MTLS and OAUTH know the worker as User:worker, each by its own proof. PLAINTEXT is the tests' own way in:
who comes there is ANONYMOUS, and a super user.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from token_issuer import AUDIENCE, TokenIssuer

from deploy.local.broker_config import Listener
from deploy.local.kafka import Cluster
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack

WORKER = "worker"
PRINCIPAL = f"User:{WORKER}"
PASSWORD = "c4n4ry-scram"  # pragma: allowlist secret
KEY_PASSWORD = "c4n4ry-key"  # pragma: allowlist secret
OAUTH_SECRET = "c4n4ry-oauth"  # pragma: allowlist secret
WRONG = "c4n4ry-wrong"  # a wrong secret is nobody's business either
CANARY = "c4n4ry"  # in every secret: nothing a worker says may hold it


class Files:
    """Certificates and secrets as operators have them: one file each."""

    def __init__(self, folder):
        folder.mkdir(parents=True)
        ours, rogue = trustme.CA(), trustme.CA()
        self.folder = folder
        self.ca, self.rogue_ca = folder / "ca.pem", folder / "rogue-ca.pem"
        ours.cert_pem.write_to_path(self.ca)
        rogue.cert_pem.write_to_path(self.rogue_ca)
        self.broker_store = self._store("broker.pem", ours.issue_cert(LOOPBACK))
        self.cert, self.key = self._pair("worker", ours.issue_cert(WORKER, common_name=WORKER))
        self.rogue_cert, self.rogue_key = self._pair("rogue", rogue.issue_cert(WORKER, common_name=WORKER))
        self.password = self.secret("password", PASSWORD)
        self.key_password = self.secret("key-password", KEY_PASSWORD)
        self.oauth_secret = self.secret("oauth-secret", OAUTH_SECRET)
        self.wrong = self.secret("wrong", WRONG)

    def secret(self, name, content):
        file = self.folder / name
        file.write_text(f"{content}\n")
        file.chmod(0o600)
        return file

    def _store(self, name, issued):
        """Key and certificates in one file, as the broker's PEM key store."""
        store = self.folder / name
        store.write_bytes(_pkcs8(issued, NoEncryption()) + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return store

    def _pair(self, name, issued):
        """Certificate and encrypted key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(_pkcs8(issued, BestAvailableEncryption(KEY_PASSWORD.encode())))
        return cert, key


def _pkcs8(issued, encryption):
    """Java reads no other form of a key."""
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@dataclass(frozen=True)
class SecuredBroker:
    """Where it is, and what a client needs for each way in."""

    kafka: str
    scram: str
    mtls: str
    oauth: str
    files: Files
    issuer: TokenIssuer

    def over_scram(self, **changed):
        """The `kafka` section of a worker's settings; changed: security settings to be other than right."""
        security = {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": WORKER,
                    "password_file": str(self.files.password), "ca_file": str(self.files.ca)}  # fmt: skip
        return self._section(self.scram, security, changed)

    def over_mtls(self, **changed):
        security = {"protocol": "SSL", "ca_file": str(self.files.ca), "cert_file": str(self.files.cert),
                    "key_file": str(self.files.key), "key_password_file": str(self.files.key_password)}  # fmt: skip
        return self._section(self.mtls, security, changed)

    def over_oauth(self, **changed):
        security = {"protocol": "SASL_SSL", "mechanism": "OAUTHBEARER", "ca_file": str(self.files.ca),
                    "oauth_token_url": self.issuer.token_url, "oauth_client_id": WORKER,
                    "oauth_client_secret_file": str(self.files.oauth_secret)}  # fmt: skip
        return self._section(self.oauth, security, changed)

    @staticmethod
    def _section(address, security, changed):
        wanted = {name: value for name, value in (security | changed).items() if value is not None}
        return {"bootstrap_servers": address, "security": wanted}


def properties(files, issuer):
    """What makes the broker strict."""
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(files.broker_store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files.ca),
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": (
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
        ),
        "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": (
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"
        ),
        "sasl.oauthbearer.jwks.endpoint.url": issuer.keys_url,
        "sasl.oauthbearer.expected.audience": AUDIENCE,
    }


class Running:
    """The broker for the length of a block; gone also if the tests are killed."""

    def __init__(self, folder: Path):
        self._files = Files(folder / "files")
        self._issuer = TokenIssuer({WORKER: OAUTH_SECRET})
        self._stack = Stack(folder / "stack")

    def __enter__(self):
        self._stack.guard(os.getpid())
        ports = free_ports(3)
        names = {"SCRAM": "SASL_SSL", "MTLS": "SSL", "OAUTH": "SASL_SSL"}
        listeners = [Listener(name, port, names[name]) for name, port in zip(names, ports, strict=True)]
        cluster = Cluster(
            self._stack.directory / "kafka",
            properties=properties(self._files, self._issuer),
            quick_start=True,
            listeners=listeners,
            scram_users=[f"SCRAM-SHA-512=[name={WORKER},password={PASSWORD}]"],
            jvm_options=[f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._issuer.keys_url}"],
        )
        cluster.start()
        addresses = [f"{LOOPBACK}:{port}" for port in ports]
        return SecuredBroker(cluster.bootstrap_servers, *addresses, files=self._files, issuer=self._issuer)

    def __exit__(self, *_):
        self._stack.down(wipe=True)
        self._issuer.close()
        shutil.rmtree(self._stack.directory, ignore_errors=True)
