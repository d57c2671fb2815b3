"""Somebody with a browser of their own, who notices everything that should not happen in it.

A console error, an exception, a dialog or a request to another host is a finding wherever it happens, so tests do not
ask for them one by one: the fixture that lent the browser does, at the end.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Request, WebError, expect

from tests.browser.scene import Scene

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}
THEMES = ("light", "dark")
# Where pictures of what was seen are kept, for people to look at.
PICTURES = Path(__file__).parents[2] / ".cache" / "browser"
GRAVE = {"serious", "critical"}


class Visitor:
    """One browser context. ``expected``: patterns of console errors that a test causes on purpose."""

    def __init__(self, browser: Browser, scene: Scene, **options: Any) -> None:
        options = {"viewport": WIDE, "reduced_motion": "reduce"} | options
        self.context = browser.new_context(base_url=scene.origin, **options)
        self.context.set_default_timeout(10_000)
        self.expected: list[str] = []
        self.console: list[str] = []
        self._scene = scene
        self._problems: list[str] = []
        self.context.on("console", self._said)
        self.context.on("weberror", self._failed)
        self.context.on("dialog", self._asked)
        self.context.on("request", self._requested)
        self.page = self.context.new_page()

    def go(self, path: str) -> None:
        """Open a page by its address."""
        self.page.goto(path, wait_until="load")

    def sign_in(self, name: str = "ada", token: str = "") -> None:
        """Sign in by the form, from where one is."""
        self.page.locator("header").get_by_role("link", name="Sign in").click()
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_label("Operator token").fill(token or self._scene.token("operator"))
        with self.page.expect_event("load"):  # its scripts have run by then
            self.page.get_by_role("button", name="Sign in").click()

    def mark(self) -> None:
        """Put a mark on the document, which a reload would take away."""
        self.page.evaluate("window.__same = true")

    def same(self) -> bool:
        """Whether it is the document that was marked."""
        return bool(self.page.evaluate("window.__same === true"))

    def picture(self, name: str) -> None:
        """Keep a picture of the whole page in both themes."""
        before = self.page.evaluate("document.documentElement.dataset.theme")
        for theme in THEMES:
            self.wear(theme)
            self.page.screenshot(path=self.path(f"{name}-{theme}"), full_page=True)
        self.wear(before)

    def path(self, name: str) -> Path:
        """Where a picture is kept."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        return PICTURES / f"{name}.png"

    def wear(self, theme: str) -> None:
        """Look at the page in a theme, without saying so to the dashboard."""
        self.page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", theme)

    def barriers(self) -> list[str]:
        """What keeps some people from using this page, of what axe-core can tell and calls serious or critical."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{each['id']} ({each['impact']}): {node['target']} {_gist(node)}"
            for each in found
            if each["impact"] in GRAVE
            for node in each["nodes"][:3]
        ]

    def sideways(self) -> str:
        """What makes the page wider than the window; empty when it is not."""
        return str(
            self.page.evaluate("""() => {
                const room = document.documentElement.clientWidth;
                if (document.documentElement.scrollWidth <= room) return "";
                const wide = [...document.body.querySelectorAll("*")].filter((each) =>
                    each.getBoundingClientRect().right > room + 1 && !each.closest(".scroll, .visually-hidden, pre"));
                const named = wide.slice(0, 5).map((each) => `${each.nodeName}#${each.id}.${each.className}`);
                return `${document.documentElement.scrollWidth} of ${room} px: ${named.join(", ")}`;
            }""")
        )

    def spilled(self) -> list[str]:
        """Cells of tables whose words run over into their neighbours."""
        found: list[str] = self.page.evaluate("""() =>
            [...document.querySelectorAll("main td, main th")]
                .filter((each) => getComputedStyle(each).overflowX === "visible")
                .filter((each) => each.scrollWidth > each.clientWidth + 1)
                .map((each) => `${each.closest("tr").id || "head"}: ${each.innerText.slice(0, 40)}`)
        """)
        return found

    def problems(self) -> list[str]:
        """What happened in this browser that should not have."""
        return [each for each in self._problems if not any(re.search(pattern, each) for pattern in self.expected)]

    def failed(self, name: str) -> None:
        """Keep what can be seen of a test that failed."""
        for number, page in enumerate(self.context.pages):
            page.screenshot(path=self.path(f"failed-{name}-{number}"), full_page=True)
        self.path(f"failed-{name}").with_suffix(".log").write_text("\n".join([*self.console, *self._problems]) + "\n")

    def _said(self, message: ConsoleMessage) -> None:
        words = f"console {message.type}: {message.text} ({message.location.get('url', '')})"
        self.console.append(words)
        if message.type in {"error", "warning"}:
            self._problems.append(words)

    def _failed(self, error: WebError) -> None:
        self._problems.append(f"exception: {error.error}")

    def _asked(self, dialog: Dialog) -> None:
        self._problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((f"{self._scene.origin}/", "data:", "blob:", "about:")):
            self._problems.append(f"request to another host: {request.url}")


Visit = Callable[..., Visitor]


def eventually(condition: Callable[[], object], visitor: Visitor, what: str, *, seconds: float = 10.0) -> None:
    """Wait for something that is not in the page, while the browser goes on."""
    for _ in range(int(seconds * 10)):
        if condition():
            return
        visitor.page.wait_for_timeout(100)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def _gist(node: dict[str, Any]) -> str:
    told = [each["message"] for each in (*node["any"], *node["all"], *node["none"])]
    return f"{node['html'][:120]!r} {'; '.join(told)[:240]}"


expect.set_options(timeout=10_000)
