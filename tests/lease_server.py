"""A stand-in for the API server that keeps Leases as the real one does: honest resourceVersions, 409 on a conflict, 400
for a time without six decimals.

It runs in threads, speaks HTTP, and can be told to hang, to be slow, to answer with errors or with nonsense, to die
and come back.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
PREFIX = "/apis/coordination.k8s.io/v1/namespaces/"


class LeaseServer:
    """Leases by namespace and name, and when each was written by whom.

    mode: ok, hang, nonsense, or an HTTP status that every request gets. lost_answers: writes that arrive unanswered.
    read_only: a Role without the right to write. hanging: requests that hang before the others are answered, as one of
    several API servers makes them.
    """

    def __init__(self) -> None:
        self.mode: str | int = "ok"
        self.delay_s = 0.0
        self.lost_answers = 0
        self.read_only = False
        self.hanging = 0
        self.leases: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.history: list[tuple[float, str]] = []
        self.token = ""
        self._version = 100
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._connections: set[socket.socket] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server._connections.add(self.connection)

            def finish(self) -> None:
                super().finish()
                server._connections.discard(self.connection)

            def do_GET(self) -> None:
                server._answer(self, None)

            def do_POST(self) -> None:
                server._answer(self, self.rfile.read(int(self.headers["Content-Length"])))

            do_PUT = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._handler = Handler
        self._listen(0)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def holder(self, name: str = "t", namespace: str = "fleet") -> str:
        """Who holds a Lease; empty for nobody."""
        with self._lock:
            lease = self.leases.get((namespace, name))
            return (lease["spec"].get("holderIdentity") or "") if lease else ""

    def kubeconfig(self, folder: Path, token: str = "") -> Path:
        """A file that leads a client here."""
        path = folder / "kubeconfig.json"
        user = {"token": token} if token else {}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": self.url}}],
                    "users": [{"name": "test", "user": user}],
                    "contexts": [
                        {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "fleet"}}
                    ],
                }
            )
        )
        return path

    def die(self) -> None:
        """Stop listening: connections are refused from now on, those that are there are cut."""
        self.mode = 503
        self._open.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Listen again at the same address, with every Lease as it was, after `die`."""
        self.mode = "ok"
        self._open.clear()
        self._listen(self._http.server_port)

    def _listen(self, port: int) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes | None) -> None:
        self.requests.append((request.command, request.path))
        if self.delay_s:
            time.sleep(self.delay_s)
        self.hanging -= (hangs := self.hanging > 0)
        if hangs or self.mode == "hang":
            self._open.wait(60)
            request.close_connection = True
            return None
        if self.mode == "nonsense":
            return _send(request, 200, b"<html>a proxy</html>")
        if isinstance(self.mode, int):
            return _send(request, self.mode, _status(self.mode, "told to"))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _send(request, 401, _status(401, "Unauthorized"))
        if self.read_only and body:
            return _send(request, 403, _status(403, "Forbidden"))
        with self._lock:
            status, answer = self._apply(request.command, request.path, json.loads(body) if body else None)
        if request.command != "GET" and self.lost_answers:
            self.lost_answers -= 1
            request.close_connection = True
            return None
        return _send(request, status, json.dumps(answer).encode())

    def _apply(self, method: str, path: str, given: Any) -> tuple[int, Any]:
        assert path.startswith(PREFIX), path
        namespace, kind, *name = path[len(PREFIX) :].split("/")
        assert kind == "leases", path
        key = (namespace, name[0] if name else given["metadata"]["name"])
        there = self.leases.get(key)
        if method == "GET":
            return (200, there) if there else (404, _object(404, "NotFound"))
        if not all(_MICRO_TIME.fullmatch(given["spec"][name]) for name in ("acquireTime", "renewTime")):
            return 400, _object(400, "BadRequest")
        if method == "POST":
            return (409, _object(409, "AlreadyExists")) if there else (201, self._store(key, given))
        if there is None:
            return 404, _object(404, "NotFound")
        if given["metadata"].get("resourceVersion") not in (None, there["metadata"]["resourceVersion"]):
            return 409, _object(409, "Conflict")
        return 200, self._store(key, given)

    def _store(self, key: tuple[str, str], given: Any) -> Any:
        self._version += 1
        given["metadata"] = {**given["metadata"], "namespace": key[0], "resourceVersion": str(self._version)}
        self.leases[key] = given
        self.history.append((time.monotonic(), given["spec"].get("holderIdentity") or ""))
        return given


@contextmanager
def lease_server() -> Iterator[LeaseServer]:
    """A server that ends with the block."""
    server = LeaseServer()
    try:
        yield server
    finally:
        server.die()


def _object(code: int, reason: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": reason,
    }


def _status(code: int, reason: str) -> bytes:
    return json.dumps(_object(code, reason)).encode()


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    try:
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
    except OSError:
        request.close_connection = True
