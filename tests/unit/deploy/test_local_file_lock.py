import subprocess
import sys

import pytest

from deploy.local.errors import StackBusy
from deploy.local.file_lock import locked


def test_a_lock_held_by_another_process_is_waited_for_until_the_deadline(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib\nfrom deploy.local.file_lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), timeout_s=5):\n print('held', flush=True)\n sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StackBusy, match="lock"), locked(path, timeout_s=0.2):
            pass
        holder.kill()

    with locked(path, timeout_s=5):  # the kernel dropped it with its holder
        pass


def test_a_lock_is_free_again_after_its_block_failed(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "lock", timeout_s=1):
        raise KeyError

    with locked(tmp_path / "lock", timeout_s=1):
        pass
