"""Headless Chromium for tests, spoken to through its debugging pipe: no driver, no port, no package."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any
from urllib.parse import urlsplit

DEADLINE_S = 60.0

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of a running Chromium; what went wrong on it and where it sent requests is kept."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._rest = commands, answers, b""
        self._number, self._session = 0, ""
        self.faults: list[str] = []
        self.requests: list[str] = []

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1.0) -> None:
        """Show an address in a new page of this size."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height, scale=scale)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def size(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """Give the page another size; below 600 pixels it is a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression on the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait for an expression to become true; its value. Until the page is there, it is not."""
        give_up = time.monotonic() + DEADLINE_S
        while not (value := self.run(f"document.body && ({script})")):
            assert time.monotonic() < give_up, f"it never came that {script}; {self.faults}"
            self._drain(0.05)
        return value

    def text(self, selector: str) -> str:
        """What stands in an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write what the page shows as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(b64decode(shot["data"]))

    def hosts(self) -> set[str]:
        """Every host that the page asked for anything."""
        return {urlsplit(url).netloc for url in self.requests}

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            for answer in self._messages(1.0):
                if answer.get("id") == self._number:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    return dict(answer["result"])
        raise AssertionError(f"{method}: the browser did not answer")

    def _drain(self, timeout_s: float) -> None:
        for _ in self._messages(timeout_s):
            pass

    def _messages(self, timeout_s: float) -> Iterator[dict[str, Any]]:
        if select([self._answers], [], [], timeout_s)[0]:
            self._rest += os.read(self._answers, 1 << 20)
        *whole, self._rest = self._rest.split(b"\0")
        for text in whole:
            message = json.loads(text)
            self._note(message.get("method"), message.get("params", {}))
            yield message

    def _note(self, event: str | None, facts: dict[str, Any]) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            case "Runtime.exceptionThrown":
                self.faults.append(json.dumps(facts["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if facts["type"] in ("error", "warning", "assert"):
                self.faults.append(json.dumps(facts["args"]))
            case "Log.entryAdded" if facts["entry"]["level"] in ("error", "warning"):
                self.faults.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium with a profile of its own; it is gone at the end."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "chromium is missing: apt install chromium"
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The debugging pipe is file descriptors 3 and 4, by Chromium's own choice.
        command = f'exec "$0" "$@" 3<&{in_read} 4>&{out_write}'
        process = subprocess.Popen(
            ["bash", "-c", command, program, *_FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(in_read, out_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(in_read)
        os.close(out_write)
        try:
            yield Browser(in_write, out_read)
        finally:
            process.kill()
            process.wait()
            os.close(in_write)
            os.close(out_read)
