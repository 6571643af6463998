"""A real Chromium for tests of the chart's pages, and what a page may never do, whatever is tested.

Where there is no Chromium the tests are skipped, and say so. It is the system's (`apt-get install chromium`), or the
one that `CHROMIUM` names; Playwright's own is never downloaded.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.async_api import Error, async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from playwright.async_api import Browser, ConsoleMessage, Page, Request, WebSocket

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
AXE: Final = files("axe_playwright_python") / "axe.min.js"
BOUND_S: Final = 20.0
PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
DESKTOP: Final[dict[str, Any]] = {"viewport": {"width": 1280, "height": 800}}

needs_chromium: Final = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium: NOTHING IN A BROWSER IS TESTED (apt-get install chromium)"
)

_WATCH: Final = """
  window.ashiViolations = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    const where = `${event.sourceFile}:${event.lineNumber}`;
    window.ashiViolations.push(`${event.violatedDirective}: ${event.blockedURI} ${where}`);
  });
"""
_DOWN: Final = ("WebSocket connection to", "net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET")


@asynccontextmanager
async def chromium(*arguments: str) -> AsyncIterator[Browser]:
    """A browser, ended with the block; `arguments`: options of its command line."""
    assert CHROMIUM is not None
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        try:
            yield browser
        finally:
            await browser.close()


class Chromium:
    """A browser that is open, and the loop that it belongs to."""

    def __init__(self, runner: asyncio.Runner, browser: Browser) -> None:
        self.browser = browser
        self._runner = runner

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a test in the browser's loop."""
        self._runner.run(main)

    def page(self, url: str, **options: Any) -> AbstractAsyncContextManager[Watched]:
        """A page in a profile of its own, see `a_page`."""
        return a_page(self.browser, url, **options)


class Watched:
    """A page, and what it did that no page may: errors, requests to others, what its own policy forbids."""

    def __init__(self, page: Page, host: str) -> None:
        self.page = page
        self.host = host
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.server_is_down = False
        """While a test has taken the server away, that the page cannot reach it is no fault."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error.stack or error}"))
        page.on("request", self._on_request)
        page.on("requestfailed", self._on_failed)
        page.on("response", lambda answer: self._on_status(answer.url, answer.status))
        page.on("websocket", self._on_websocket)

    def _on_console(self, message: ConsoleMessage) -> None:
        expected = self.server_is_down and any(word in message.text for word in _DOWN)
        if message.type in {"error", "warning"} and not expected:
            self.faults.append(f"console {message.type}: {message.text} ({message.location})")

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith((f"http://{self.host}/", "data:")):
            self.faults.append(f"request to another host: {request.url}")

    def _on_websocket(self, socket: WebSocket) -> None:
        self.requests.append(socket.url)
        if not socket.url.startswith(f"ws://{self.host}/"):
            self.faults.append(f"websocket to another host: {socket.url}")

    def _on_failed(self, request: Request) -> None:
        aborted = request.failure == "net::ERR_ABORTED"  # given up by the page itself, as it looks at something else
        if not self.server_is_down and not aborted:
            self.faults.append(f"request failed: {request.url}: {request.failure}")

    def _on_status(self, url: str, status: int) -> None:
        if status >= 400:
            self.faults.append(f"status {status}: {url}")

    async def check(self) -> None:
        """See that it has done nothing of it so far."""
        violations = await self.page.evaluate("window.ashiViolations")
        found = self.faults + violations
        assert not found, "\n".join(found)

    async def until(self, expression: str, what: str, *, arg: Any = None, timeout_s: float = BOUND_S) -> Any:
        """Wait until an expression is true in the page, and give its value.

        Playwright's own `wait_for_function` evaluates text within the page, which the page's policy forbids.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            value: Any = None
            with self._on_the_way():
                value = await self.page.evaluate(expression, arg)
            if value:
                return value
            assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}: {value!r}; faults: {self.faults}"
            await asyncio.sleep(0.05)

    @contextmanager
    def _on_the_way(self) -> Iterator[None]:
        """What is asked while the page goes to another one is not answered."""
        try:
            yield
        except Error as error:
            if "context was destroyed" not in str(error):
                raise

    async def axe(self) -> None:
        """See that axe-core finds no fault of accessibility that is serious or critical."""
        await self.page.evaluate(f"() => {{ {AXE.read_text()}; }}")
        found = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        grave = [
            f"{violation['id']} ({violation['impact']}): {violation['help']}: "
            + "; ".join(f"{node['html'][:200]} [{node['failureSummary']}]" for node in violation["nodes"][:3])
            for violation in found["violations"]
            if violation["impact"] in {"serious", "critical"}
        ]
        assert not grave, "\n".join(grave)
        assert len(found["passes"]) > 10, "axe has not looked at the page"


@asynccontextmanager
async def a_page(browser: Browser, url: str, **options: Any) -> AsyncIterator[Watched]:
    """A page in a fresh profile; it may not have done anything wrong when the block ends."""
    context = await browser.new_context(**({**DESKTOP, "locale": "en-GB", "timezone_id": "Asia/Tokyo"} | options))
    try:
        await context.add_init_script(_WATCH)
        page = await context.new_page()
        page.set_default_timeout(BOUND_S * 1000)
        watched = Watched(page, url.split("/")[2])
        await page.goto(url)
        yield watched
        await watched.check()
    finally:
        await context.close()
