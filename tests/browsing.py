"""A browser for tests: Chromium without a display, as `deploy.local.chromium` finds or fetches it."""

import os
from contextlib import contextmanager

from deploy.local.chromium import chromium

WAIT_MS = 30_000  # generous: the machine may be busy with other things
# No sandbox: it needs rights that containers do not give, and the pages are ours.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]


@contextmanager
def opened_browser():
    """Chromium for the length of a block."""
    from playwright.sync_api import expect, sync_playwright

    found = chromium()
    expect.set_options(timeout=WAIT_MS)  # it does not go by the page's
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.executable, args=OPTIONS, env={**os.environ, **found.environment}
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(browser, url, *, width=1280, height=900, **context):
    """A page of a fresh profile; what it asks for and what went wrong is in `asked` and `errors`."""
    profile = browser.new_context(viewport={"width": width, "height": height}, locale="en-GB", **context)
    try:
        page = profile.new_page()
        page.set_default_timeout(WAIT_MS)
        page.asked, page.errors = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
        page.goto(url)
        yield page
    finally:
        profile.close()
