"""The live page in a real Chromium: what it shows, to whom it can be shown, and what it does when the worker goes."""

import re
from contextlib import ExitStack, closing

import pytest
from browsing import WAIT_MS, opened_page
from made_worker import CHURN, MadeWorker, outcomes, refused
from playwright.sync_api import expect

from app.observe import live
from app.observe.merged import ProcessMetrics
from app.observe.snapshot import WorkerFacts

HOSTILE = """<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>"'`</td></table>{{7*7}}&lt;b&gt;"""
# What a piece of text contrasts with is the nearest ground below it that is not transparent.
CONTRASTS = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest("noscript, script")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text]);
  }
  return found;
}"""


def tile(page, name):
    """The figure under this name."""
    return (
        page.locator("#tiles > div").filter(has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator(".value")
    )


def test_figures_are_those_of_the_worker(opened, worker):
    with opened() as page:
        worker.serve_versions(stable="1", canary="2")
        worker.work(outcomes("1", 750, [refused()]), outcomes("2", 250, answered_by="canary"))
        worker.observer.transaction("aborted")

        expect(tile(page, "Lag, records")).to_have_text("42")
        expect(tile(page, "Dead letters")).to_have_text("1")
        versions = page.get_by_role("region", name="Versions of churn").get_by_role("row")
        expect(versions.nth(1)).to_contain_text("stable75")
        expect(versions.nth(2)).to_contain_text("canary25 %")
        expect(page.get_by_role("region", name="Latency of churn")).to_contain_text("end to end")
        expect(page.locator("#letters li")).to_contain_text("churn.events [0] @ 7, version 1")
        expect(page.locator("#letters li")).to_contain_text("BadFeatures: age is …, allowed 18 to 120")
        expect(page.locator("#delivery")).to_contain_text("1 committed")
        expect(page.locator("#troubles")).to_contain_text("transactions aborted")
        expect(page.get_by_role("img", name=re.compile("^Lag, records, chart. Now: behind 42$"))).to_be_visible()
        assert page.errors == []


def test_text_of_a_dead_letter_is_text_whatever_it_says(opened, worker):
    with opened() as page:
        worker.work(outcomes(letters=[refused(HOSTILE, topic=HOSTILE, error=HOSTILE)]))
        worker.lag(1)
        worker.alive = worker.ready = HOSTILE

        letter = page.locator("#letters li")
        expect(letter).to_contain_text(f"{HOSTILE} [0] @ 7")
        expect(letter.locator(".message")).to_have_text(f"{HOSTILE}: {HOSTILE}")
        expect(page.locator("#alive")).to_have_text(f"Not alive: {HOSTILE}")
        assert page.locator("img, main script, iframe").count() == 0
        assert page.evaluate("window.pwned") is None
        assert page.errors == []


def test_should_markup_ever_get_in_the_policy_keeps_it_from_running(opened):
    with opened() as page:
        page.evaluate("html => { document.querySelector('main').innerHTML = html; }", HOSTILE)
        page.evaluate("""() => {
          const script = document.createElement("script");
          script.textContent = "window.pwned = 1";
          document.body.append(script);
        }""")
        expect(page.locator("img")).to_have_count(1)
        assert page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in error for error in page.errors)


def test_nothing_is_asked_of_anybody_else(opened):
    with opened() as page:
        expect(tile(page, "Lag, records")).to_have_text("42")
        base = f"http://127.0.0.1:{page.server.port}/"
        assert all(url.startswith(base) for url in page.asked)
        assert page.locator("canvas").count() == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_has_to_be_scrolled_sideways_but_wide_tables(opened, worker, width, scheme):
    worker.serve_versions(stable="1", canary="2")
    worker.work(outcomes(letters=[refused("x" * 500, topic="t" * 249)]))
    with opened(width=width, height=640, color_scheme=scheme) as page:
        expect(page.locator("#letters li")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_both_themes_and_when_the_worker_is_gone(opened, worker, scheme):
    worker.serve_versions(stable="1", canary="2")
    worker.work(outcomes(letters=[refused()]))
    worker.observer.transaction("aborted")
    worker.ready = "not in the consumer group yet: churn"
    with opened(color_scheme=scheme) as page:
        expect(page.locator("#letters li")).to_be_visible()
        live_ones = page.evaluate(CONTRASTS)
        page.server.close()
        expect(page.locator("#state")).to_have_attribute("data-state", "gone")
        assert len(live_ones) > 60
        for contrast, text in (*live_ones, *page.evaluate(CONTRASTS)):
            assert contrast >= 4.5, text


def test_everything_can_be_reached_with_the_keyboard_and_is_named(opened, worker):
    worker.work(outcomes(letters=[refused()]))
    with opened() as page:
        expect(page.locator("#letters li")).to_be_visible()
        reached = []
        for _ in range(14):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate("(at => at.getAttribute('aria-label') ?? at.textContent)(document.activeElement)")
            )
        for name in (
            "Skip to the figures", "Pause", "Theme: auto", "Latency of churn", "Versions of churn",
            "Dead letters by reason", "The last dead letters, newest first", "metrics",
        ):  # fmt: skip
            assert name in reached
        assert any("churn.events" in text for text in reached)  # lag by partition, named by its heading
        expect(page.get_by_role("region", name="Lag by partition").last).to_be_visible()

        page.keyboard.press("Shift+Tab")
        page.get_by_role("link", name="Skip to the figures").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "figures"


def test_the_page_has_landmarks_and_one_place_that_is_read_aloud(opened):
    with opened() as page:
        for role in ("banner", "main", "contentinfo"):
            assert page.get_by_role(role).count() == 1
        assert page.get_by_role("heading", level=1).inner_text() == "Inference worker"
        assert page.locator("[aria-live], [role=status], [role=alert]").count() == 1
        expect(page.get_by_role("status")).to_have_text("Live")
        assert page.evaluate("document.documentElement.lang") == "en"


def test_a_worker_that_goes_is_said_to_be_gone_with_the_age_of_its_figures_and_is_found_again(opened, worker):
    with opened() as page:
        expect(tile(page, "Lag, records")).to_have_text("42")
        port = page.server.port
        page.server.close()

        expect(page.get_by_role("status")).to_have_text(re.compile("The worker (has ended|cannot be reached)"))
        expect(page.locator("#age")).to_have_text(re.compile(r"Figures are \d+ s old; trying again\."), timeout=WAIT_MS)
        assert page.evaluate("document.body.classList.contains('stale')")
        assert page.title() == "Gone: worker-7f9c"
        expect(tile(page, "Lag, records")).to_have_text("42")

        worker.lag(1)
        with closing(worker.open(port)):
            expect(page.get_by_role("status")).to_have_text("Live", timeout=WAIT_MS)
            expect(tile(page, "Lag, records")).to_have_text("1")
            assert not page.evaluate("document.body.classList.contains('stale')")


def test_one_viewer_too_many_is_told_so(browser, worker, monkeypatch):
    monkeypatch.setattr(live.LiveFeed.__init__, "__kwdefaults__", {"every_s": 0.05, "most_viewers": 1})
    with closing(worker.open()) as server, ExitStack() as pages:
        url = f"http://127.0.0.1:{server.port}/"
        first = pages.enter_context(opened_page(browser, url))
        expect(first.get_by_role("status")).to_have_text("Live")
        with opened_page(browser, url) as second:
            expect(second.get_by_role("status")).to_contain_text("1 viewers look at this worker already")
            pages.close()
            expect(second.get_by_role("status")).to_have_text("Live", timeout=WAIT_MS)


def test_figures_stand_still_while_paused(opened, worker):
    with opened() as page:
        expect(tile(page, "Lag, records")).to_have_text("42")
        page.get_by_role("button", name="Pause").press("Enter")
        worker.lag(7)
        expect(page.get_by_role("status")).to_have_text("Paused")
        page.wait_for_function("() => new Promise(done => setTimeout(() => done(true), 300))")
        expect(tile(page, "Lag, records")).to_have_text("42")
        page.get_by_role("button", name="Pause").press("Enter")
        expect(tile(page, "Lag, records")).to_have_text("7")


def test_a_theme_that_was_chosen_stays(opened):
    with opened(color_scheme="light") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.get_by_role("button", name="Theme: auto").click()
        page.get_by_role("button", name="Theme: light").click()
        page.get_by_role("button", name="Theme: dark").wait_for()
        dark = page.evaluate(ground)
        page.reload()
        page.get_by_role("button", name="Theme: dark").wait_for()
        assert page.evaluate(ground) == dark != light
        assert page.errors == []


def test_nothing_moves_for_those_who_asked_for_less_motion(browser, worker):
    with closing(worker.open()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        for motion, moving in (("reduce", 0), ("no-preference", 1)):
            with opened_page(browser, url, reduced_motion=motion) as page:
                page.evaluate("document.getElementById('state').dataset.state = 'connecting'")
                count = (
                    "(document.getElementById('state').dataset.state = 'connecting', document.getAnimations().length)"
                )
                assert page.evaluate(count) == moving


def test_what_is_read_is_not_drawn_again_until_it_changes(opened, worker):
    worker.work(outcomes(letters=[refused()]))
    with opened() as page:
        expect(page.locator("#letters li")).to_be_visible()
        page.evaluate("document.querySelector('#letters li').dataset.mark = 'read'")
        worker.lag(99)
        expect(tile(page, "Lag, records")).to_have_text("99")
        expect(page.locator("#letters li")).to_have_attribute("data-mark", "read")


def test_several_processes_have_a_row_each(browser, worker):
    merged = ProcessMetrics()
    merged.started(0, again=False)
    merged.reported(0, worker.metrics.samples())
    made = MadeWorker(WorkerFacts("several", "0", "exactly_once", 2, (CHURN,)))
    with (
        closing(made.open(watched=merged)) as server,
        opened_page(browser, f"http://127.0.0.1:{server.port}/") as page,
    ):
        rows = page.get_by_role("region", name="Processes").last.get_by_role("row")
        expect(rows).to_have_count(3)
        expect(rows.nth(1)).to_contain_text("at work")
        expect(rows.nth(2)).to_contain_text("no report")
        expect(tile(page, "Lag, records")).to_have_text("42")
        expect(page.locator("#instance")).to_have_text("several, 2 processes")
