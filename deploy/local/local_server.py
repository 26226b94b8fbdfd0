"""The life of a server in a directory, whichever it is: started, asked until it answers, stopped."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from deploy.local.process import ServerProcess


class LocalServer(ABC):
    """One server in a directory. Another object on the same directory means the same server.

    As a context manager it starts on entry and stops on exit.
    """

    START_WITHIN_S: ClassVar[float] = 60.0
    STOP_WITHIN_S: ClassVar[float] = 5.0

    def __init__(self, name: str, directory: Path) -> None:
        self.directory = directory.absolute()
        self.process = ServerProcess(name, self.directory)

    @property
    def is_running(self) -> bool:
        """Whether the server's process runs; it may not serve yet."""
        return self.process.is_running

    def start(self, *, timeout_s: float | None = None) -> None:
        """Start the server if it does not run and wait until it answers, START_WITHIN_S if nothing else is said.

        What a download or a build takes is not counted. Raises StartFailed (then it was stopped again) or
        DownloadFailed.
        """
        program = self._program()
        deadline = time.monotonic() + (self.START_WITHIN_S if timeout_s is None else timeout_s)
        try:
            if not self.is_running:
                self._launch(program)
            self.process.wait_until(self._answers, deadline=deadline)
        except BaseException:  # Ctrl-C too must leave nothing behind that nobody asked for any more
            self.kill()
            raise

    def stop(self, *, grace_s: float | None = None) -> None:
        """Stop the server, at once after STOP_WITHIN_S if nothing else is said. No effect if it does not run."""
        self.process.stop(grace_s=self.STOP_WITHIN_S if grace_s is None else grace_s)

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

    @abstractmethod
    def _program(self) -> Path:
        """The path of what is run; downloads or builds it if need be."""

    @abstractmethod
    def _launch(self, program: Path) -> None:
        """Start the process, on a port of its own choice."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves."""
