"""The examples beside the documentation: the short one runs, and what the others call is there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import app.embed
from app.wiring import training

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_embedded_core_answers_and_says_what_is_wrong(tmp_path):
    training.train("churn", store=str(tmp_path), estimator=None, rows=2_000, seed=0, progress=lambda _: None)
    command = [sys.executable, EXAMPLES / "embedded.py", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answered, rejected = done.stdout.splitlines()
    assert answered.endswith(" by version 1")
    assert rejected == "age is 17, allowed 18 to 120"


def test_it_is_as_short_as_is_said():
    code = ast.parse((EXAMPLES / "embedded.py").read_text())
    lines = {node.lineno for node in ast.walk(code) if isinstance(node, ast.expr | ast.stmt)} - {1}
    assert len(lines) <= 10


@pytest.mark.parametrize("name", ["score_with_ray", "score_with_spark", "embedded"])
def test_what_an_example_imports_from_here_is_there(name):
    for node in ast.walk(ast.parse((EXAMPLES / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "app.embed":
            assert all(hasattr(app.embed, item.name) for item in node.names)
