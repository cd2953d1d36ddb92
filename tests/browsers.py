"""Pages in a real browser: who serves them, who opens them, and that they stay silent."""

import contextlib
import functools
import http.server
import shutil
import threading

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, such as Debian's package chromium")


def launched():
    """The browser, closed in the end: for a fixture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """The address at which a folder is served."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextlib.contextmanager
def quiet(browser, address, tolerated=()):
    """What opens a page at a width, and holds it to silence: no message, no failure, nothing from elsewhere."""
    contexts, complaints = [], []

    def heard(message):
        if not message.text.startswith(tuple(tolerated)):
            complaints.append(f"{message.type}: {message.text}")

    def go(path, width=1440, **options):
        context = browser.new_context(base_url=address, viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("request", lambda request: request.url.startswith((address, "data:")) or complaints.append(request.url))
        page.goto(path, wait_until="networkidle")
        return page

    try:
        yield go
    finally:
        for context in contexts:
            context.close()
    assert complaints == []
