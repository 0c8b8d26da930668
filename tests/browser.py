"""A real browser without a window, asked through Chrome's protocol: in real time, waiting for answers alone."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1400,1000"),
)
BEYOND = """
[...document.body.querySelectorAll("*")].filter((one) => {
    const box = one.getBoundingClientRect();
    if (box.width <= 1 || box.right <= document.documentElement.clientWidth + 1 || !one.checkVisibility()) return false;
    for (let above = one; above; above = above.parentElement)
        if (getComputedStyle(above).overflowX !== "visible" && above.tagName !== "svg" && above !== one) {
            const clip = above.getBoundingClientRect();
            if (clip.right <= document.documentElement.clientWidth + 1) return false;
        }
    return true;
}).map((one) => `${one.tagName.toLowerCase()}#${one.id}.${one.className.baseVal ?? one.className} `
    + `${Math.round(one.getBoundingClientRect().left)}-${Math.round(one.getBoundingClientRect().right)} `
    + `${one.textContent.trim().slice(0, 40)}`)
"""


class Browser:
    """A page in it. errors: what went wrong in the page; requests: what it asked a network for."""

    def __init__(self, folder: Path):
        if BROWSER is None:
            pytest.skip("no chromium or chrome is installed: apt-get install --no-install-recommends chromium")
        # It reads commands from 3 and answers on 4, one JSON text after another, each with a zero byte at its end.
        (commands, write), (read, answers) = os.pipe(), os.pipe()
        commands, answers = (fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (commands, answers))
        profile = f"--user-data-dir={folder / 'profile'}"
        line = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, BROWSER, *_QUIET, profile, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._commands, self._answers = os.fdopen(write, "wb", buffering=0), os.fdopen(read, "rb", buffering=0)
        self._left, self._number, self._session, self._loaded = b"", 0, None, False
        self.errors: list[str] = []
        self.requests: list[str] = []
        (page,) = (one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Runtime", "Page", "Network"):
            self._ask(f"{domain}.enable")

    def _ask(self, method: str, **parameters: Any) -> dict:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        text = json.dumps({"id": self._number, "method": method, "params": parameters} | session)
        self._commands.write(text.encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _message(self) -> dict:
        while b"\0" not in self._left:
            part = self._answers.read(1 << 20)
            assert part, "the browser has ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        of = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = of["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and of["type"] in ("error", "warning"):
            self.errors.append(str([one.get("value") for one in of["args"]]))
        elif event.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(of["request"]["url"])

    def open(self, address: str) -> None:
        """Open an address from nothing, as another reader does, and wait until its script is done."""
        self.go("about:blank")
        self.requests.clear()
        self.go(address)
        self.run(
            "new Promise((done) => { const look = () => document.documentElement.dataset.ready"
            " || document.querySelector('#problem:not([hidden])') ? done() : setTimeout(look, 10); look(); })"
        )

    def go(self, address: str) -> None:
        """Open an address in place of what is there, and wait until it is loaded."""
        self._loaded = False
        self._ask("Page.navigate", url=address)
        while not self._loaded:
            self._note(self._message())

    def run(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives; of a promise, what it is kept with."""
        result = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go; code: Windows' number of it."""
        for kind in ("rawKeyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def point(self, x: float, y: float) -> None:
        """Move the pointer."""
        self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def prefer(self, scheme: str) -> None:
        """Set what the system says of light and dark."""
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int) -> None:
        """Show pages on a screen of this size, as a telephone does; 0 by 0 is the window again."""
        if width:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
            self._ask("Emulation.setDeviceMetricsOverride", **size)
        else:
            self._ask("Emulation.clearDeviceMetricsOverride")

    def beyond(self) -> list[str]:
        """Return what of the page reaches beyond the screen's right edge, but for what is in a box that scrolls."""
        return self.run(BEYOND)

    def close(self) -> None:
        """End it."""
        self._commands.close()
        self._answers.close()
        self.process.terminate()
        self.process.wait(30)
