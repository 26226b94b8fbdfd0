"""A Prometheus that runs a configuration of ours, for tests of what we give it to scrape and to evaluate."""

import http.client
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil

from deploy.local.artifacts import prometheus_executable
from deploy.local.errors import StartFailed
from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, choose_port, known_port
from deploy.local.prometheus_questions import PrometheusQuestions

_SHAPE = "prometheus.json"
_CALL_TIMEOUT_S = 10.0


class PrometheusServer(LocalServer, PrometheusQuestions):
    """One Prometheus in a directory. The port and what it has scraped outlive stop and kill.

    configuration: read where it is, so that rule files and file_sd_configs are found relative to it.
    options: further arguments of the program, `--storage.tsdb.retention.time=2h` for instance.
    """

    START_WITHIN_S = 60.0
    STOP_WITHIN_S = 10.0

    def __init__(self, directory: Path, configuration: Path, *, options: Sequence[str] = ()) -> None:
        super().__init__("prometheus", directory)
        self._configuration, self._options = configuration.absolute(), tuple(options)

    @property
    def url(self) -> str:
        """Without a slash at the end. Raises StartFailed if the server was never started."""
        port = known_port(self.directory / _SHAPE)
        if port is None:
            raise StartFailed(f"the Prometheus in {self.directory} has never been started")
        return f"http://{LOOPBACK}:{port}"

    def reload(self) -> None:
        """Have it read its configuration again. Returns at once."""
        if self.process.pid is not None:
            psutil.Process(self.process.pid).send_signal(signal.SIGHUP)

    def _program(self) -> Path:
        return prometheus_executable()

    def _launch(self, program: Path) -> None:
        port = choose_port(self.directory / _SHAPE)
        self.process.start(
            [
                program,
                f"--config.file={self._configuration}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address={LOOPBACK}:{port}",
                *self._options,
            ]
        )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=_CALL_TIMEOUT_S) as answer:  # noqa: S310 # nosec B310
                return bool(answer.status == http.HTTPStatus.OK)
        except urllib.error.HTTPError as refused:  # 503 until it has read back what it wrote down
            refused.close()
            return False
        except (OSError, http.client.HTTPException):
            return False
