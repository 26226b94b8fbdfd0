"""Pages of a made worker in a real browser."""

from contextlib import closing, contextmanager

import pytest
from browsing import opened_page
from made_worker import MadeWorker


@pytest.fixture
def worker():
    """With a version, a little work and a lag."""
    worker = MadeWorker()
    worker.serve_versions(stable="1")
    worker.lag(12, 30)
    return worker


@pytest.fixture
def opened(browser, worker):
    """Open the worker's live page: `with opened(width=320) as page`; it has shown something by then."""

    @contextmanager
    def opened(**options):
        with (
            closing(worker.open()) as server,
            opened_page(browser, f"http://127.0.0.1:{server.port}/", **options) as page,
        ):
            page.get_by_text("Live", exact=True).wait_for()
            page.server = server
            yield page

    return opened
