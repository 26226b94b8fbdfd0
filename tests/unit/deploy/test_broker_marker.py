from pathlib import Path
from types import SimpleNamespace

import pytest

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("fixtures", "marked"),
    [
        (["kafka"], ["broker"]),
        (["topics", "kafka", "tmp_path"], ["broker"]),
        (["schema_registry"], ["broker"]),
        (["tmp_path"], []),
    ],
)
def test_a_test_that_asks_for_the_broker_is_marked_so(request, fixtures, marked):
    conftest = request.config.pluginmanager.get_plugin(str(TESTS / "conftest.py"))
    marks = []
    item = SimpleNamespace(fixturenames=fixtures, add_marker=lambda mark: marks.append(mark.name))

    conftest.pytest_collection_modifyitems([item])

    assert marks == marked
