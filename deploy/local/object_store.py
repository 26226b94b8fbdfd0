"""A real S3 server over a folder: Versity's gateway, whose buckets are directories. Needs extended attributes.

Chosen because its conditional writes hold under races (`If-None-Match: *` creates once, `If-Match` compares and
swaps), which the model store is built on; tests/integration/test_s3_store.py asks it for that.
"""

import contextlib
import http.client
import secrets
from pathlib import Path

from deploy.local.artifacts import s3_gateway
from deploy.local.json_record import read_record, write_record
from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, choose_port, known_port

REGION = "us-east-1"
_SHAPE = "s3.json"
_KEYS = "s3-keys.json"
_CALL_TIMEOUT_S = 5.0


class S3Server(LocalServer):
    """One server in a directory. Port, keys and objects outlive stop and kill."""

    def __init__(self, directory: Path) -> None:
        super().__init__("S3 server", directory)

    @property
    def endpoint(self) -> str:
        """The base URL, with the bucket to follow as a path."""
        return f"http://{LOOPBACK}:{self._port()}"

    @property
    def access_key_id(self) -> str:
        """The name of the one account there is."""
        return "local"

    @property
    def secret_access_key(self) -> str:
        """Its secret, drawn when it is first asked for."""
        record = read_record(self.directory / _KEYS)
        if record is None:
            record = {"secret_access_key": secrets.token_urlsafe(24)}
            self.directory.mkdir(parents=True, exist_ok=True)
            write_record(self.directory / _KEYS, record)
        return str(record["secret_access_key"])

    @property
    def environment(self) -> dict[str, str]:
        """What any client of S3 finds it by."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
        }

    def make_bucket(self, name: str) -> None:
        """No effect if there is one of that name. The server need not run."""
        (self._folder("buckets") / name).mkdir(exist_ok=True)

    def _program(self) -> Path:
        return s3_gateway()

    def _launch(self, program: Path) -> None:
        address = f"{LOOPBACK}:{choose_port(self.directory / _SHAPE)}"
        # E-tags are extended attributes of the objects' files, so they change together with the content. Kept in
        # files of their own (`--sidecar`), a reader could get old content with the new e-tag.
        buckets = self._folder("buckets")
        self.process.start(
            [program, "--port", address, "--region", REGION, "--quiet", "posix", buckets],
            {"ROOT_ACCESS_KEY": self.access_key_id, "ROOT_SECRET_KEY": self.secret_access_key},
        )

    def _folder(self, name: str) -> Path:
        folder = self.directory / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _port(self) -> int:
        return known_port(self.directory / _SHAPE) or choose_port(self.directory / _SHAPE)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._port(), timeout=_CALL_TIMEOUT_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/")
                return connection.getresponse().status == http.HTTPStatus.FORBIDDEN  # as it should be: nobody asks
            except (OSError, http.client.HTTPException):
                return False
