"""Takes a stack down when the process it serves is gone, however that process ended.

A test run that is killed outright cleans nothing up; its brokers would stay. Started by `Stack.guard`, in a
session of its own: python -m deploy.local.guardian OWNER_PID DIRECTORY
"""

import contextlib
import sys
from pathlib import Path

import psutil


def main(owner_pid: int, directory: Path) -> None:
    """Wait for the owner to end, then end the servers in the directory and wipe their data."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended before we look
        psutil.Process(owner_pid).wait()
    from deploy.local.stack import Stack  # noqa: PLC0415 - loads Kafka's client, which the long wait does not need

    Stack(directory).down(wipe=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
