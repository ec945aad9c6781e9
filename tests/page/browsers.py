"""Chromium for the tests of the page, and what they ask of it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.page.built import UI
from tests.servers.processes import in_ci

PATIENCE_MS = 60_000
"""Time for a fact to appear, also on a busy machine."""
MOST_TABS = 80
AXE = UI / "node_modules" / "axe-core" / "axe.min.js"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium. Skip the test where it is not installed; in CI, fail."""
    program = shutil.which("chromium")
    if program is None:
        text = "Chromium is not installed: apt-get install chromium"
        pytest.fail(text) if in_ci() else pytest.skip(text)
    expect.set_options(timeout=PATIENCE_MS)
    with (
        sync_playwright() as playwright,
        # The tests may run as root, for whom Chromium has no sandbox.
        playwright.chromium.launch(executable_path=program, args=["--no-sandbox"]) as browser,
    ):
        yield browser


@contextmanager
def open_page(
    browser: Browser, address: str, *, theme: str = "light", width: int = 1280
) -> Iterator[Page]:
    """Open a tab whose requests all go to the server of the page, and that logs no error."""
    strays: list[str] = []
    with browser.new_context(
        base_url=address,
        color_scheme=theme,
        reduced_motion="reduce",
        viewport={"width": width, "height": 800},
        timezone_id="Europe/Berlin",
    ) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on(
            "request", lambda one: None if one.url.startswith(address) else strays.append(one.url)
        )
        page.on("pageerror", lambda error: strays.append(str(error)))
        page.on("console", lambda line: strays.append(line.text) if line.type == "error" else None)
        yield page
        assert [line for line in strays if not _is_refusal(line)] == []


def _is_refusal(line: str) -> bool:
    """Return whether a line is Chromium's own about an answer that is an error."""
    return re.match(r"Failed to load resource: .* status of 4\d\d", line) is not None


def go(page: Page, place: str, heading: str) -> None:
    """Open an address, and wait until its view is shown."""
    page.goto(place)
    expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until an element has the focus."""
    expect(target).to_be_visible()
    for _ in range(MOST_TABS):
        if target.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {target}")


def press(page: Page, target: Locator, key: str = "Enter") -> None:
    """Press a key on an element that Tab reaches."""
    tab_to(page, target)
    page.keyboard.press(key)


def faults_of(page: Page, *rules: str) -> list[str]:
    """Return the serious faults that axe finds in a page, by all rules or by these."""
    if not page.evaluate("() => 'axe' in window"):
        # Evaluated as the developer tools do it: the policy of the page admits no other script.
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{one['id']}: {part['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for part in one["nodes"]
    ]
