"""A real browser for the dashboard's tests: Debian's Chromium, driven from outside; none is ever downloaded.

The driver keeps an event loop in the thread it was started in, which no coroutine test could then use: so it lives for
one module and no longer.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.scene import Scene, write_model
from tests.browser.visitor import Visit, Visitor
from tests.support import missing

OUTCOME = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    item.stash[OUTCOME] = item.stash.get(OUTCOME, False) or report.failed
    return report


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser of this system."""
    return shutil.which("chromium") or missing("chromium", "apt-get install chromium")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    sandbox = ["--no-sandbox"] if sys.platform == "linux" and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=sandbox)
        yield started
        started.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def scene(model: Path) -> Iterator[Scene]:
    """A registry and a dashboard, and nothing registered."""
    with Scene(model) as scene:
        scene.start_registry()
        scene.start_dashboard()
        yield scene
        assert scene.complaints() == []


@pytest.fixture
def visit(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Open a browser of one's own on a scene; whatever went wrong in it fails the test."""
    visitors: list[Visitor] = []
    with ExitStack() as stack:

        def begin(scene: Scene, **options: object) -> Visitor:
            visitor = Visitor(browser, scene, **options)
            stack.callback(visitor.context.close)
            visitors.append(visitor)
            return visitor

        yield begin
        if request.node.stash.get(OUTCOME, False):
            for each in visitors:
                each.failed(request.node.name)
        assert [problem for each in visitors for problem in each.problems()] == []
