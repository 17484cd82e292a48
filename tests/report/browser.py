"""A real headless Chromium on a page, without a network."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import ROOT

AXE = ROOT / "build/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@contextmanager
def browser(width: int, height: int, *, dark: bool = False, touch: bool = False) -> Iterator[Any]:
    """A selenium driver; skips with the reason where there is no Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if touch:
        metrics = {"width": width, "height": height, "pixelRatio": 2.0}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}")
        for flag in flags:
            options.add_argument(flag)
        service = webdriver.ChromeService(executable_path=driver)
        session = webdriver.Chrome(options=options, service=service)
        try:
            if dark:
                scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
                session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
            yield session
        finally:
            session.quit()


def open_page(session: Any, path: Path, seconds: float = 30) -> None:
    """Open a file and wait until every figure is drawn."""
    session.get(path.resolve().as_uri())
    wait_until_drawn(session, seconds)


def wait_until_drawn(session: Any, seconds: float = 30) -> None:
    """Wait until every figure is drawn that is not folded."""
    from selenium.webdriver.support.ui import WebDriverWait

    missing = "return document.querySelectorAll('figure.plotted:not([data-drawn])').length"
    folded = missing.replace("figure", "details:not([open]) figure")
    WebDriverWait(session, seconds).until(
        lambda d: d.execute_script(missing) == d.execute_script(folded)
    )


def violations(session: Any) -> list[str]:
    """What axe-core finds against WCAG 2.2, levels A and AA, in the page as it stands."""
    if not AXE.exists():
        pytest.skip("no axe-core: npm install --no-save --prefix build axe-core@4")
    session.execute_script(AXE.read_text())
    found = session.execute_async_script(
        "axe.run(document, {runOnly: arguments[0], resultTypes: ['violations']})"
        ".then(arguments[1])",
        RULES,
    )
    assert found["testEngine"]["name"] == "axe-core"
    return [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
