"""A headless Chromium, driven through its WebDriver (https://www.w3.org/TR/webdriver2/) on this machine."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROGRAMS = ("chromium", "chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--window-size=1280,900", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
START_SECONDS = 60.0


def is_installed() -> bool:
    return all(map(shutil.which, PROGRAMS))


class Browser:
    """A page in Chromium."""

    def __init__(self, driver: str) -> None:
        self.driver = driver
        self.session = ""

    def request(self, method: str, path: str, content: Any = None) -> Any:
        """Sends a command of WebDriver and returns its value."""
        data = None if method == "GET" else json.dumps(content or {}).encode()
        request = urllib.request.Request(self.driver + self.session + path, data, {}, method=method)
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self.request("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Runs JavaScript and returns what it returns."""
        return self.request("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        """Clicks on the element of a CSS selector as a user does."""
        self.request("POST", f"/element/{self._find(selector)}/click")

    def hover(self, selector: str, x: int = 0, y: int = 0) -> None:
        """Moves the mouse to an element, x and y pixels from its middle."""
        origin = {"element-6066-11e4-a52e-4f735466cecf": self._find(selector)}
        move = {"type": "pointerMove", "duration": 0, "origin": origin, "x": x, "y": y}
        self.request("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def press(self, *keys: str) -> None:
        """Presses keys, one after another; special ones have codes, such as \\ue014 for the right arrow."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.request("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def screenshot(self) -> bytes:
        return base64.b64decode(self.request("GET", "/screenshot"))

    def log(self) -> list[dict[str, Any]]:
        """Returns what the console has shown, requests included that were refused."""
        return self.request("POST", "/se/log", {"type": "browser"})

    def _find(self, selector: str) -> str:
        (element,) = self.request("POST", "/element", {"using": "css selector", "value": selector}).values()
        return element


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """Starts Chromium, with a profile of its own, and ends it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = subprocess.Popen(
        [shutil.which("chromedriver") or "", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    page = Browser(f"http://127.0.0.1:{port}")
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            chrome = {"args": [*FLAGS, *flags, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
            wanted = {"alwaysMatch": {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}}
            end = time.monotonic() + START_SECONDS
            while not page.session:
                try:
                    page.session = "/session/" + page.request("POST", "/session", {"capabilities": wanted})["sessionId"]
                except ConnectionError:
                    pass
                except urllib.error.URLError as error:
                    if not isinstance(error.reason, ConnectionError) or time.monotonic() > end:
                        raise
                    time.sleep(0.05)
            yield page
            page.request("DELETE", "")
    finally:
        process.terminate()
        process.wait()
