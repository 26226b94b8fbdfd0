"""A part of the fuzzing in every run of the tests; `make fuzz` is the whole of it."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.batches import batch_of, read, write
from tests.fuzz.judgement import Broken, Judge

ROOT = Path(__file__).parents[2]
SECONDS = 60  # two on an idle machine; a busy one may take eight for the first batch


def fuzzer(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.fuzz.decoders", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("seed", [1, random.SystemRandom().randrange(2**32)], ids=["fixed", "random"])
def test_mutated_datums_are_decoded_or_rejected_and_hurt_nobody(seed):
    done = fuzzer("--datums", "6000", "--seconds", str(SECONDS), "--seed", str(seed))
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"mutated datums +([\d,]+)", done.stdout)[1].replace(",", "")) > 0


def test_a_batch_can_be_made_again_and_replayed_from_its_file(tmp_path):
    batch = batch_of(seed=5, turn=3, number=2)
    assert batch.values == batch_of(seed=5, turn=3, number=2).values
    write(batch, tmp_path / "batch.json")
    again = read(tmp_path / "batch.json")
    assert (again.values, again.mutated, again.stream.writers) == (batch.values, batch.mutated, batch.stream.writers)
    done = fuzzer("--replay", str(tmp_path / "batch.json"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_law_is_found(tmp_path):
    batch = batch_of(seed=5, turn=0, number=0)
    at = batch.mutated.index(True)
    batch.values[at] = batch.values[at][: batch.stream.framing.size]
    batch.mutated[at] = False  # a lie: no writer wrote it
    with pytest.raises(Broken, match=f"row {at} is valid, and rejected as truncated"):
        Judge(batch.stream).check(batch.values, batch.mutated, all_alone=True)
    write(batch, tmp_path / "batch.json")
    done = fuzzer("--replay", str(tmp_path / "batch.json"))
    assert done.returncode == 1
    assert "FOUND" in done.stdout
    assert json.loads((tmp_path / "batch.json").read_text(encoding="utf-8"))["mutated"][at] is False
