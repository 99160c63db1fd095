"""Chromium for tests: found, started, and asked about the page that it shows."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
REQUIRED = bool(os.environ.get("COMPRESS_BROWSER_REQUIRED"))
"""Set by ``.ci/run`` where a browser is known to be: a missing one is then a failure, not a reason to skip."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; nothing is downloaded for it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """Opens pages as a reader would see them."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1400, theme: str = "light", scripts: bool = True) -> None:
        """Open a file in a window of a width, with a preferred theme, with or without JavaScript."""
        self.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        wishes = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}  # a click must not meet a scroll
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.command("Emulation.setEmulatedMedia", features=features)
        self.logs()  # what was said before this page
        self.driver.get("about:blank")
        self.driver.get(page.as_uri())
        # The driver may return while the old document still answers.
        there = f"return location.href === {json.dumps(page.as_uri())} && document.readyState === 'complete';"
        for _ in range(200):
            if self.ask(there):
                return
            time.sleep(0.05)
        raise AssertionError(f"{page} did not load in 10 s")

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript function's body in the page, whether or not the page's own scripts may run."""
        found = self.command("Runtime.evaluate", expression=f"(() => {{ {script} }})()", returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def logs(self) -> tuple[list[str], list[str]]:
        """What the console said, and the addresses asked for, since the last call."""
        console = [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return console, [params["request"]["url"] for params in sent]
