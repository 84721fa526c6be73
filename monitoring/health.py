"""An HTTP server in a thread: metrics for Prometheus, probes for Kubernetes, the laggards for a person.

It answers while the event loop is blocked: that is when somebody asks.
"""

import errno
import io
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from broker_topics.errors import ConfigError
from monitoring.logs import get_logger, redact

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_STRAGGLERS = 1000
_REQUEST_TIMEOUT_S = 10
_log = get_logger("health")

Stragglers = Callable[[int], Iterable[Mapping[str, object]]]
"""Given k, the facts of the k devices that lag most; called from a server thread."""


class Readiness:
    """What the probes are told; set by the shell, read by server threads."""

    def __init__(self) -> None:
        self._state: tuple[bool, bool, str] = (False, False, "starting")

    def restoring(self, reason: str) -> None:
        """Neither started nor ready, for instance while the state is rebuilt from the log."""
        self._state = (False, False, reason)

    def catching_up(self, reason: str) -> None:
        """Started but not ready: restored, with a backlog before it."""
        self._state = (True, False, reason)

    def ready(self) -> None:
        """Restored and caught up."""
        self._state = (True, True, "ready")

    def not_ready(self, reason: str) -> None:
        """Not ready any more, for instance while stopping; whether it had started stays as it is."""
        self._state = (self._state[0], False, reason)

    @property
    def is_started(self) -> bool:
        """Whether the state was restored."""
        return self._state[0]

    @property
    def is_ready(self) -> bool:
        """Whether it was restored and has caught up."""
        return self._state[1]

    @property
    def reason(self) -> str:
        """Why it is not ready yet."""
        return self._state[2]


class Page(Protocol):
    """Something more to serve, such as the fleet page."""

    def answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes] | None:
        """The answer to a request, None where the path is not this page's; called from a server thread."""


class HealthServer:
    """Serves /metrics, /livez, /readyz, /startupz and /debug/stragglers until `close`.

    Args:    registry: what /metrics shows.
             heartbeat_age_s: seconds since the event loop last ran (`EventLoopLag.age_s`); the broker plays no part.
             max_heartbeat_age_s: an older heartbeat fails /livez.
             stragglers: answers /debug/stragglers?k=50. page: is asked before all these.
             host: this machine only, unless told otherwise. port: 0 takes a free one, see `port`.
    Raises:  ConfigError: if the address cannot be listened on.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        heartbeat_age_s: Callable[[], float],
        readiness: Readiness,
        stragglers: Stragglers = lambda k: (),
        page: Page | None = None,
        max_heartbeat_age_s: float = 10.0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._heartbeat_age_s = heartbeat_age_s
        self._max_heartbeat_age_s = max_heartbeat_age_s
        self._readiness = readiness
        self._stragglers, self._page_beside = stragglers, page
        self._server = _listen(host, port)
        self._server.set_app(self._answer)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="health", daemon=True
        )
        self._thread.start()
        _log.info("health_listening", host=host, port=self.port)

    def close(self) -> None:
        """Stop listening and free the port; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            return _send(start_response, HTTPStatus.METHOD_NOT_ALLOWED, {"error": "only GET is answered"})
        try:
            if self._page_beside and (shown := self._page_beside.answer(environ, start_response)) is not None:
                return shown
            if environ["PATH_INFO"] == "/metrics":
                return cast(Iterable[bytes], self._metrics(environ, start_response))
            status, body = self._page(environ)
        except Exception:
            # Whoever asks gets an answer, and the server lives on.
            _log.exception("health_request_failed", path=environ["PATH_INFO"])
            status, body = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "see the log"}
        return _send(start_response, status, body)

    def _page(self, environ: "WSGIEnvironment") -> tuple[HTTPStatus, dict[str, Any]]:
        match environ["PATH_INFO"]:
            case "/livez":
                age_s = self._heartbeat_age_s()
                body = {"heartbeat_age_s": round(age_s, 3), "max_heartbeat_age_s": self._max_heartbeat_age_s}
                return _status(age_s <= self._max_heartbeat_age_s), body
            case "/readyz":
                return _status(self._readiness.is_ready), {"reason": self._readiness.reason}
            case "/startupz":
                return _status(self._readiness.is_started), {"reason": self._readiness.reason}
            case "/debug/stragglers":
                return self._straggler_page(environ.get("QUERY_STRING", ""))
            case _:
                pages = ["/metrics", "/livez", "/readyz", "/startupz", "/debug/stragglers?k=50"]
                return HTTPStatus.NOT_FOUND, {"error": "no such page", "pages": pages}

    def _straggler_page(self, query: str) -> tuple[HTTPStatus, dict[str, Any]]:
        text = parse_qs(query).get("k", ["50"])[-1]
        if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_STRAGGLERS):
            return HTTPStatus.BAD_REQUEST, {"error": f"k must be a number from 1 to {MAX_STRAGGLERS}"}
        return HTTPStatus.OK, {"stragglers": [redact(row) for row in self._stragglers(int(text))]}


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Without the look-up of the host's full name, which may wait for a name server for seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away in the middle of an answer is no event.
        return


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT_S

    def get_environ(self) -> dict[str, Any]:
        """A page that streams sets time-outs of its own."""
        return {**super().get_environ(), "headwater.connection": self.connection}

    def get_stderr(self) -> io.StringIO:
        """Nowhere: what we answer logs its own errors, the rest are clients that went away or took nothing."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it so)
        """Probes come every few seconds: they are not logged."""


def _listen(host: str, port: int) -> WSGIServer:
    try:
        return (_Server6 if ":" in host else _Server)((host, port), _Handler)
    except OverflowError:
        raise ConfigError(f"metrics port {port}: must lie between 0 and 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "the port is in use; choose another one, or 0 for any free one"
        elif error.errno == errno.EACCES:
            why = "this user may not open the port; choose one above 1023"
        else:
            why = f"{error.strerror or error}; set the metrics host to an address of this machine"
        raise ConfigError(f"metrics cannot be served on {host}:{port}: {why}") from error


def _status(good: bool) -> HTTPStatus:
    return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE


def _send(start_response: "StartResponse", status: HTTPStatus, body: Mapping[str, object]) -> Iterable[bytes]:
    data = json.dumps(body, allow_nan=False).encode() + b"\n"
    start_response(
        f"{status.value} {status.phrase}",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
        ],
    )
    return [data]
