"""Azurite, Microsoft's own emulator of Azure's blobs: 190 MB from npm, fetched once per machine; needs Node.js."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from app.models.store_access import StoreAccess
from deploy.local.file_lock import locked
from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, choose_port, known_port

VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"  # its only one
API = "2021-08-06"
FETCH_TIMEOUT_S, CALL_TIMEOUT_S = 500.0, 5.0
PORT = "azurite-port.json"


class Azurite(LocalServer):
    """One server, its blobs in memory: what it holds ends with it."""

    scheme = "az"

    def __init__(self, directory):
        super().__init__("Azurite", directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._key = base64.b64encode(os.urandom(32)).decode()

    @property
    def access(self):
        """How a store is opened on it."""
        return StoreAccess(
            endpoint=f"http://{LOOPBACK}:{self._port()}/{ACCOUNT}",
            allow_http=True,
            account_name=ACCOUNT,
            account_key=self._key,
        )

    def make_bucket(self, name):
        """A container, by a request signed as the protocol has it (Authorize with Shared Key)."""
        path, at = f"/{ACCOUNT}/{name}", datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        ours = {"x-ms-date": at, "x-ms-version": API}
        canonical = "".join(f"{header}:{value}\n" for header, value in ours.items())
        signed = "PUT" + "\n" * 12 + canonical + f"/{ACCOUNT}{path}\nrestype:container"
        digest = hmac.new(base64.b64decode(self._key), signed.encode(), hashlib.sha256).digest()
        headers = {**ours, "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"}
        status = self._asked("PUT", f"{path}?restype=container", {**headers, "Content-Length": "0"})
        assert status == http.HTTPStatus.CREATED, status

    def _program(self):
        return fetched()

    def _launch(self, program):
        command = [shutil.which("node"), program, "--silent", "--disableTelemetry", "--inMemoryPersistence"]
        command += ["--blobHost", LOOPBACK, "--blobPort", str(choose_port(self.directory / PORT))]
        command += ["--skipApiVersionCheck"]  # the client's may be newer
        self.process.start(command, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{self._key}"})

    def _port(self):
        return known_port(self.directory / PORT) or choose_port(self.directory / PORT)

    def _answers(self):
        try:
            return self._asked("GET", f"/{ACCOUNT}?comp=list", {}) == http.HTTPStatus.FORBIDDEN  # nobody asks
        except (OSError, http.client.HTTPException):
            return False

    def _asked(self, method, path, headers):
        connection = http.client.HTTPConnection(LOOPBACK, self._port(), timeout=CALL_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            return connection.getresponse().status


def fetched():
    """The program; installed by npm whole or not at all. Raises RuntimeError without Node.js, or with npm's words."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kafka-inference-worker"
    complete, staging = cache / f"azurite-{VERSION}", cache / f"azurite-{VERSION}.partial"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise RuntimeError("Azurite needs Node.js with npm on the path")
    with locked(cache / f"azurite-{VERSION}.lock", timeout_s=FETCH_TIMEOUT_S):
        if not complete.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", staging]
            done = subprocess.run(
                [*map(str, command), f"azurite@{VERSION}"],
                capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"npm cannot install Azurite: {done.stderr[-500:]}")
            staging.rename(complete)
    return complete / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
