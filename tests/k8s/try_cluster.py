"""`make k8s-test`: the manifests and the election, on whatever cluster KUBECONFIG names.

Nothing stays there but what a namespace of its own holds, and that is deleted. What needs an operator, a kubelet or a
network plug-in is not tried.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from broker_topics.errors import HeadwaterError
from broker_topics.local.cluster import LocalCluster
from tests.k8s.cluster import Cluster
from tests.k8s.manifests import OVERLAYS, Resource, pick, pod_templates, resources
from tests.k8s.tools import KUSTOMIZE, ensure_kustomize
from tests.kafka.support import Fleet, GaveUpError, Role, fleet_in

FIRST = ("ServiceAccount", "Role", "RoleBinding")
"""Kinds that must really be there before a pod of theirs can be tried; they do nothing by themselves."""

LEASE, LEASE_S = "aggregator", 6


def moved(overlay: str, namespace: str) -> list[Resource]:
    """An overlay's resources in another namespace."""
    found = resources(overlay)
    for resource in found:
        if "namespace" in resource["metadata"]:
            resource["metadata"]["namespace"] = namespace
        for subject in resource.get("subjects", []):
            subject["namespace"] = namespace
    return found


def try_manifests(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Dry run of everything; yields what is wrong."""
    for overlay in OVERLAYS:
        found = moved(overlay, namespace)
        for resource in found:
            if resource["kind"] in FIRST:
                cluster.apply(resource)
        tried, unknown = 0, set[str]()
        for resource in found:
            if cluster.address(resource) is None:
                unknown.add(resource["kind"])
                continue
            tried += 1
            name = f"{overlay}: {resource['kind']} {resource['metadata']['name']}"
            yield from (f"{name}: {fault}" for fault in cluster.faults(resource))
        for name, template in pod_templates(found):
            tried += 1
            yield from (f"{overlay}: pod of {name}: {fault}" for fault in cluster.pod_faults(template, namespace))
        print(f"{overlay}: {tried} dry runs")
        if unknown:
            print(f"{overlay}: not tried, as their operators are not installed here: {', '.join(sorted(unknown))}")


def _as_root(pod: Resource) -> None:
    pod["securityContext"] |= {"runAsNonRoot": False, "runAsUser": 0}


def _misspelt(pod: Resource) -> None:
    pod["containers"][0]["livenessprobe"] = {}


def try_faults(cluster: Cluster, namespace: str) -> Iterator[str]:
    """One fault each must be refused, or nothing above means anything; yields what was let pass."""
    for change, why, told in (
        (_as_root, "a pod that runs as root", "runAsNonRoot"),
        (_misspelt, "a field that does not exist", "livenessprobe"),
    ):
        (deployment,) = pick(moved("production", namespace), "Deployment", "evaluator")
        template = deployment["spec"]["template"]
        change(template["spec"])
        heard = [fault for fault in cluster.faults(deployment) if told in fault]
        if not heard:
            yield f"a Deployment with {why} was taken without a warning"
        refused = [f for f in cluster.pod_faults(template, namespace) if told in f and not f.startswith("warning")]
        if not refused:
            yield f"{why} was taken"


async def until(true: Callable[[], bool], what: str, log: Callable[[], str], within_s: float = 60.0) -> float:
    """Wait for something; the seconds it took. What never comes is told with the end of the log as it is then."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            raise GaveUpError(f"it never came that {what}\n{log()[-2000:]}")
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def try_election(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Two real aggregators with the rights of their service account: kill the leader, then end its successor."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        token = cluster.token("aggregator", namespace)
        config = cluster.kubeconfig(folder / "kubeconfig", token, namespace)
        async with LocalCluster(data=folder / "kafka") as broker:
            with fleet_in(folder, broker.bootstrap, "t") as fleet:
                await fleet.create()
                return await _take_over(cluster, namespace, fleet, config)


async def _take_over(cluster: Cluster, namespace: str, fleet: Fleet, config: Path) -> Iterator[str]:
    def contend(identity: str) -> Role:
        variables = {"NAME": LEASE, "NAMESPACE": namespace, "IDENTITY": identity, "DURATION_S": str(LEASE_S)}
        environment = {f"HEADWATER_LEASE_{name}": value for name, value in variables.items()}
        listen = ("--listen-port", "0")
        return fleet.start("aggregator", *listen, environment=environment | {"KUBECONFIG": str(config)})

    def led_by(identity: str) -> Callable[[], bool]:
        return lambda: cluster.holder(LEASE, namespace) == identity

    first = contend("first")
    await until(led_by("first"), "the first aggregator leads", lambda: first.text)
    second = contend("second")
    await until(lambda: "health_listening" in second.text, "the second aggregator stands by", lambda: second.text)
    fleet.worker("w-1", "w-2", "w-3")
    first.kill()
    took_s = await until(led_by("second"), "the second aggregator leads", lambda: second.text)
    print(f"election: killed with -9, the other one held the Lease {took_s:.1f} s later (it lasts {LEASE_S} s)")
    third = contend("third")
    await until(lambda: "health_listening" in third.text, "the third aggregator stands by", lambda: third.text)
    ending = asyncio.create_task(second.stop())
    took_s = await until(led_by("third"), "the third aggregator leads", lambda: third.text)
    print(f"election: ended in order, the other one held the Lease {took_s:.1f} s later")
    faults = [] if (status := await ending) == 0 else [f"an aggregator that was told to end ended with {status}"]
    return iter(faults + ([] if await third.stop() == 0 else ["the last aggregator did not end with 0"]))


def main() -> int:
    """Try everything; 0 if nothing is wrong, 1 otherwise, 77 without a cluster."""
    try:
        cluster = Cluster()
        ensure_kustomize()
    except HeadwaterError as error:
        print(f"headwater: {error}", file=sys.stderr)
        return error.exit_code
    print(f"Kubernetes {cluster.version} at {cluster.config.cluster.server}, {KUSTOMIZE.parent.name}")
    (like,) = pick(resources("production"), "Namespace")
    with cluster.namespace(like) as namespace:
        faults = [*try_manifests(cluster, namespace), *try_faults(cluster, namespace)]
        if "--no-election" not in sys.argv[1:]:
            try:
                faults += asyncio.run(try_election(cluster, namespace))
            except GaveUpError as error:
                faults.append(f"election: {error}")
    for fault in faults:
        print(f"WRONG  {fault}")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
