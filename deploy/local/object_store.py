"""A real S3 server over a folder: Versity's gateway, whose buckets are directories. Needs extended attributes.

Chosen because its conditional writes hold under races (`If-None-Match: *` creates once, `If-Match` compares and
swaps), which the model store is built on; tests/integration/test_s3_store.py asks it for that.
"""

import contextlib
import http.client
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.artifacts import s3_gateway
from deploy.local.json_record import read_record, write_record
from deploy.local.ports import LOOPBACK, choose_port, known_port
from deploy.local.process import ServerProcess

REGION = "us-east-1"
_SHAPE = "s3.json"
_KEYS = "s3-keys.json"
_CALL_TIMEOUT_S = 5.0


class S3Server:
    """One server in a directory. Another object on the same directory means the same server.

    Port, keys and objects outlive stop and kill. As a context manager it starts on entry and stops on exit.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.process = ServerProcess("S3 server", self.directory)

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

    @property
    def is_running(self) -> bool:
        """Whether the server's process runs; it may not serve yet."""
        return self.process.is_running

    def make_bucket(self, name: str) -> None:
        """No effect if there is one of that name. The server need not run."""
        (self._folder("buckets") / name).mkdir(exist_ok=True)

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start the server if it does not run and wait until it answers. The build is not counted.

        Raises StartFailed (then it was stopped again) or DownloadFailed.
        """
        gateway = s3_gateway()
        deadline = time.monotonic() + timeout_s
        if not self.is_running:
            address = f"{LOOPBACK}:{choose_port(self.directory / _SHAPE)}"
            # E-tags are extended attributes of the objects' files, so they change together with the content. Kept in
            # files of their own (`--sidecar`), a reader could get old content with the new e-tag.
            buckets = self._folder("buckets")
            self.process.start(
                [gateway, "--port", address, "--region", REGION, "--quiet", "posix", buckets],
                {"ROOT_ACCESS_KEY": self.access_key_id, "ROOT_SECRET_KEY": self.secret_access_key},
            )
        try:
            self.process.wait_until(self._answers, deadline=deadline)
        except BaseException:  # Ctrl-C too must leave nothing behind that nobody asked for any more
            self.kill()
            raise

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop the server. No effect if it does not run."""
        self.process.stop(grace_s=grace_s)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self.process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

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
