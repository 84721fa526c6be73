"""A Kubernetes cluster as its API shows it: dry runs that hear every warning, and a namespace to try things in."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig

from broker_topics.errors import ToolMissingError
from tests.k8s.manifests import Resource

_STRICT = {"dryRun": "All", "fieldValidation": "Strict"}
_OWNER = {"fieldManager": "headwater-test", "force": "true"}


class Cluster:
    """What KUBECONFIG names; raises ToolMissingError where there is none, or it does not answer."""

    def __init__(self) -> None:
        path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if not path.exists():
            raise ToolMissingError(
                "no Kubernetes cluster: set KUBECONFIG to a file that names one (kind, k3d, minikube, a real one)"
            )
        config = KubeConfig.from_file(path).get()
        if config is None:
            raise ToolMissingError(f"{path} names no cluster: kubectl config use-context NAME")
        self.config = config
        try:
            self._client = Client(self.config, ConnectionParams())
            self.version = self._json("GET", "/version")["gitVersion"]
        except Exception as error:
            raise ToolMissingError(f"the Kubernetes cluster of {path} does not answer: {error}") from error
        self._plurals: dict[tuple[str, str], tuple[str, bool] | None] = {}

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._client.request(method, path, **arguments)
        answer.raise_for_status()
        return dict(answer.json())

    def address(self, resource: Resource) -> str | None:
        """Where resources of this kind lie in this one's namespace; None where the cluster does not know the kind."""
        version, kind = resource["apiVersion"], resource["kind"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self._plurals:
            answer = self._client.get(root)
            known = answer.json().get("resources", []) if answer.status_code == 200 else []
            found = [(r["name"], r["namespaced"]) for r in known if r["kind"] == kind and "/" not in r["name"]]
            self._plurals[version, kind] = found[0] if found else None
        place = self._plurals[version, kind]
        if place is None:
            return None
        return f"{root}/namespaces/{resource['metadata']['namespace']}/{place[0]}" if place[1] else f"{root}/{place[0]}"

    def faults(self, resource: Resource) -> list[str]:
        """What a server-side dry run of applying it says: an error, or warnings, which count as much."""
        return self._apply(resource, _STRICT)

    def pod_faults(self, template: Resource, namespace: str) -> list[str]:
        """The same for a pod template as a pod of its own: a Deployment's pods are only warned about."""
        # Written out and read again, so that the caller's template stays as it is.
        pod: Resource = yaml.safe_load(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **template}))
        pod["metadata"] |= {"name": "dry-run", "namespace": namespace}
        volumes = pod["spec"].setdefault("volumes", [])
        mounted = {mount["name"] for box in pod["spec"]["containers"] for mount in box.get("volumeMounts", [])}
        volumes += [{"name": name, "emptyDir": {}} for name in sorted(mounted - {v["name"] for v in volumes})]
        return self._apply(pod, _STRICT)

    def apply(self, resource: Resource) -> None:
        """Really apply it."""
        faults = self._apply(resource, {})
        assert not faults, faults

    def _apply(self, resource: Resource, parameters: dict[str, str]) -> list[str]:
        answer = self._client.patch(
            f"{self.address(resource)}/{resource['metadata']['name']}",
            params=_OWNER | parameters,
            content=yaml.safe_dump(resource),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )
        faults = [f"warning: {text}" for text in answer.headers.get_list("warning")]
        if answer.is_error:
            faults.append(f"{answer.status_code}: {answer.json().get('message', answer.text)}")
        return faults

    @contextmanager
    def namespace(self, like: Resource) -> Iterator[str]:
        """A new namespace with the labels of `like`, deleted at the end."""
        name = f"headwater-test-{secrets.token_hex(3)}"
        self.apply({**like, "metadata": {**like["metadata"], "name": name}})
        try:
            yield name
        finally:
            self._json("DELETE", f"/api/v1/namespaces/{name}")

    def token(self, account: str, namespace: str) -> str:
        """A token of a service account, as its pods get one; good for ten minutes."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self._json("POST", path, json=request)["status"]["token"])

    def holder(self, lease: str, namespace: str) -> str:
        """Who holds a Lease; empty where nobody does."""
        answer = self._client.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}")
        return str(answer.json().get("spec", {}).get("holderIdentity", "")) if answer.status_code == 200 else ""

    def kubeconfig(self, file: Path, token: str, namespace: str) -> Path:
        """A KUBECONFIG for whoever has this token only."""
        cluster = {k: v for k, v in self._cluster_entry().items() if v}
        file.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": {"token": token}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
                    "current-context": "x",
                }
            )
        )
        return file

    def _cluster_entry(self) -> dict[str, Any]:
        cluster = self.config.cluster
        authority = cluster.certificate_auth
        return {
            "server": cluster.server,
            "certificate-authority": str(self.config.abs_file(authority)) if authority else None,
            "certificate-authority-data": cluster.certificate_auth_data,
            "insecure-skip-tls-verify": cluster.insecure,
        }
