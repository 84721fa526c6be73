"""The fleet page as HTTP: a few static files and one stream of events, for browsers on this machine alone."""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib.resources import files
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from monitoring.logs import get_logger
from monitoring.page.feed import Feed
from monitoring.page.picture import Picture

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_LISTENERS = 32
STALL_S = 5.0
"""How long a listener may take nothing before it is dropped."""

EVENTS = "/fleet/events"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/fleet/style.css": ("style.css", "text/css; charset=utf-8"),
    "/fleet/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/fleet/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/fleet/panels.js": ("panels.js", "text/javascript; charset=utf-8"),
    "/fleet/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/fleet/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path → file in assets, and its type."""

_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]
_EVERY_S = 1.0
_SEND_BUFFER_BYTES = 64 * 1024
_AWAY = (
    "The fleet page is for browsers on the aggregator's own machine. From elsewhere, bring its port to yours: "
    "ssh -L 9464:127.0.0.1:9464 HOST, or kubectl port-forward POD 9464; then open http://127.0.0.1:9464/\n"
)
_FULL = "Too many pages listen already; close one of them.\n"

_log = get_logger("page")


class FleetPage:
    """Takes a picture every second, whoever looks, and shows it until `close`."""

    def __init__(
        self,
        picture: Picture,
        *,
        listeners: int = MAX_LISTENERS,
        stall_s: float = STALL_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._picture, self._stall_s, self._now_s = picture, stall_s, now_s
        assets = files("monitoring.page") / "assets"
        self._files = {path: (assets / name).read_bytes() for path, (name, _) in FILES.items()}
        self.feed = Feed(lambda: _event("whole", picture.whole()), listeners=listeners)
        self._ending = threading.Event()
        self.look()
        self._thread = threading.Thread(target=self._run, name="fleet-page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the sampling and every listener; a second call does nothing."""
        self._ending.set()
        self.feed.close()
        self._thread.join()

    def look(self) -> None:
        """Take one picture and show it to all who listen."""
        self.feed.publish(_event("tick", self._picture.sample(self._now_s())))

    def _run(self) -> None:
        while not self._ending.wait(_EVERY_S):
            try:
                self.look()
            except Exception:
                # The page is a window: it never takes the house down with it.
                _log.exception("health_request_failed", path=EVENTS)

    def answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes] | None:
        """The answer to a request for the page; None where the path is not the page's."""
        path = environ["PATH_INFO"]
        if path not in FILES and path != EVENTS:
            return None
        if not _at_home(environ):
            return _text(start_response, HTTPStatus.FORBIDDEN, _AWAY)
        if path == EVENTS:
            return self._listen(environ, start_response)
        body, kind = self._files[path], FILES[path][1]
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body))), *_HEADERS])
        return [body]

    def _listen(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        listener = self.feed.listen()
        if listener is None:
            return _text(start_response, HTTPStatus.SERVICE_UNAVAILABLE, _FULL)
        connection = environ.get("headwater.connection")
        if isinstance(connection, socket.socket):
            # Little is kept for a listener that takes nothing, and it is soon known as one.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            connection.settimeout(self._stall_s)
        start_response("200 OK", [("Content-Type", "text/event-stream"), *_HEADERS])
        return listener


def _at_home(environ: "WSGIEnvironment") -> bool:
    """Whether the browser runs on this machine and was not sent here by somebody else's name for it.

    A page of the wide web may let its own host name point to 127.0.0.1 and then read what is served there.
    """
    try:
        host = urlsplit("//" + environ.get("HTTP_HOST", "")).hostname or ""
    except ValueError:
        return False
    return _is_loopback(environ.get("REMOTE_ADDR", "")) and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _text(start_response: "StartResponse", status: HTTPStatus, text: str) -> Iterable[bytes]:
    body = text.encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *_HEADERS]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]
