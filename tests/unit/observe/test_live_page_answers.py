"""The page comes from the worker alone, and lets a browser run nothing but what comes with it."""

import hashlib
import re
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from made_worker import MadeWorker

from app.observe.live_page import FILES, FOLDER

SCRIPTS = ("live.js", "charts.js", "theme.js")


@pytest.fixture(scope="module")
def server():
    with closing(MadeWorker().open()) as server:
        yield server


def get(server, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        return answer.headers, answer.read().decode()


def test_a_policy_forbids_everything_that_does_not_come_from_here(server):
    headers, _ = get(server, "/")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_document_has_no_script_no_style_and_no_handler_of_its_own(server):
    _, text = get(server, "/")
    assert re.findall(r"<script[^>]*>(?!</script>)", text) == []
    assert "<style" not in text
    assert not re.search(r"\s(on\w+|style)=", text)


def test_every_file_that_the_document_names_is_served_with_its_type(server):
    _, text = get(server, "/")
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', text)
    assert len(named) == 6
    for path in named:
        headers, body = get(server, f"/{path}")
        assert headers["Content-Type"] == FILES[path.removeprefix("page/")]
        assert body


def test_all_files_are_in_the_folder_and_nothing_else_is_served(server):
    for name in FILES:
        assert (FOLDER / name).is_file()
    for path in ("/page/index.html", "/page/../live_page.py", "/page/%2e%2e/live_page.py", "/page/uplot/README.md"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            get(server, path)
        refusal.value.close()
        assert refusal.value.code == 404


def test_no_address_outside_is_named():
    for name in (*SCRIPTS, "live.css", "index.html"):
        addresses = set(re.findall(r"https?://[^\s\"'`]+", (FOLDER / name).read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_or_code_of_text(name):
    script = (FOLDER / name).read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert way not in script


def test_the_vendored_chart_library_is_as_published():
    told = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (FOLDER / "uplot" / "README.md").read_text()))
    assert told.keys() == {"uPlot.iife.min.js", "uPlot.min.css", "LICENSE"}
    for name, digest in told.items():
        assert hashlib.sha256((FOLDER / "uplot" / name).read_bytes()).hexdigest() == digest
