"""Open a page in headless chromium and collect its errors, over the DevTools pipe: no package is needed."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys

#: The browser reads from file 3 and writes to file 4.
LAUNCHER = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find():
    """Path of a browser, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """A page of the browser.

    Attributes
    ----------
    errors : list of str
        Exceptions, and errors in the console and in the browser's log, since it was opened.
    requests : list of str
        Addresses that it requested, without data URLs.
    """

    def __init__(self, read, write):
        self._read, self._write, self._session, self._number = read, write, None, 0
        self.errors, self.requests = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _message(self):
        """The next message of the browser; events before it are recorded."""
        content = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser is gone")
            content += byte
        message = json.loads(content)
        event, given = message.get("method"), message.get("params", {})
        if event == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.errors.append(str(given["args"]))
        elif event == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(given["entry"]["text"])
        elif event == "Network.requestWillBeSent" and not given["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(given["request"]["url"])
        return message

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while (answer := self._message()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path, width, height=900):
        """Open a file in a window of some pixels' width."""
        self.errors.clear()
        self.requests.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression):
        """Value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path):
        """Write a picture of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextlib.contextmanager
def page(profile):
    """Start the browser, with a folder for its profile.

    Yields
    ------
    Page
    """
    (from_us, to_browser), (from_browser, to_us) = (map(_moved_up, os.pipe()) for _ in range(2))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    browser = [find(), *options, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    command = [sys.executable, "-c", LAUNCHER, str(from_us), str(to_us), *browser]
    process = subprocess.Popen(command, pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(from_us)
    os.close(to_us)
    with open(from_browser, "rb") as read, open(to_browser, "wb") as write:
        try:
            yield Page(read, write)
        finally:
            process.terminate()
            process.wait()


def _moved_up(descriptor):
    """A duplicate of a file descriptor, larger than 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved
