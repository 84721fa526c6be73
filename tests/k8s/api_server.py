"""A stand-in for an API server, as far as `make k8s-test` asks one: discovery, dry runs, Pod Security, tokens."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml

_KINDS = {
    "/api/v1": {"Namespace": ("namespaces", False)}
    | {kind: (f"{kind.lower()}s", True) for kind in ("Pod", "Service", "ServiceAccount", "ConfigMap")},
    "/apis/apps/v1": {"Deployment": ("deployments", True), "StatefulSet": ("statefulsets", True)},
    "/apis/batch/v1": {"Job": ("jobs", True)},
    "/apis/policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "/apis/networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "/apis/rbac.authorization.k8s.io/v1": {"Role": ("roles", True), "RoleBinding": ("rolebindings", True)},
}


class ApiServer:
    """What was really stored, by path, and what was tried; `lax` lets every fault pass in silence."""

    def __init__(self, *, lax: bool = False) -> None:
        self.lax = lax
        self.stored: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.dry_runs: list[str] = []

    def get(self, path: str) -> tuple[int, dict[str, Any], list[str]]:
        if path == "/version":
            return 200, {"gitVersion": "v1.36.0-stand-in"}, []
        if path in _KINDS:
            found = [{"name": p, "kind": k, "namespaced": n} for k, (p, n) in _KINDS[path].items()]
            return 200, {"resources": [*found, {"name": "pods/log", "kind": "Pod", "namespaced": True}]}, []
        return 404, {"message": "not found"}, []

    def patch(
        self, path: str, resource: dict[str, Any], asked: dict[str, str]
    ) -> tuple[int, dict[str, Any], list[str]]:
        name = f"{resource['kind']} {resource['metadata']['name']}"
        pod = (
            resource["spec"] if resource["kind"] == "Pod" else resource.get("spec", {}).get("template", {}).get("spec")
        )
        if (
            "namespace" in resource["metadata"]
            and path.split("/namespaces/")[1].split("/", maxsplit=1)[0] not in self._namespaces()
        ):
            return 404, {"message": "namespace not found"}, []
        if pod and not self.lax:
            if asked.get("fieldValidation") == "Strict" and "livenessprobe" in pod["containers"][0]:
                # So does a real one: its server-side apply has no better status for a field that no schema names.
                return 500, {"message": "failed to create typed patch object: .livenessprobe: field not declared"}, []
            if not pod["securityContext"]["runAsNonRoot"]:
                words = "would violate PodSecurity restricted: runAsNonRoot"
                return (403, {"message": words}, []) if resource["kind"] == "Pod" else (200, {}, [words])
            account = f"/serviceaccounts/{pod['serviceAccountName']}"
            if resource["kind"] == "Pod" and not any(stored.endswith(account) for stored in self.stored):
                return 403, {"message": "error looking up service account"}, []
        if asked.get("dryRun") == "All":
            self.dry_runs.append(name)
        else:
            self.stored[path] = resource
        return 200, resource, []

    def _namespaces(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.stored if path.rpartition("/")[0] == "/api/v1/namespaces"}


@contextmanager
def api_server(folder: Path, *, lax: bool = False) -> Iterator[tuple[ApiServer, Path]]:
    """The server, and a KUBECONFIG that names it."""
    api = ApiServer(lax=lax)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(*api.get(urlparse(self.path).path))

        def do_PATCH(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
            body = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(*api.patch(urlparse(self.path).path, body, asked))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(201, {"status": {"token": f"token-for-{self.path}"}}, [])

        def do_DELETE(self) -> None:
            api.deleted.append(self.path)
            self._answer(200, {}, [])

        def _answer(self, status: int, body: dict[str, Any], warnings: list[str]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for warning in warnings:
                self.send_header("Warning", f'299 - "{warning}"')
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        file = folder / "kubeconfig"
        cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
        file.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        try:
            yield api, file
        finally:
            server.shutdown()
            thread.join()
