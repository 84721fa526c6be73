"""Our own rules for pods, stricter than the restricted profile and about things that no validator knows."""

from typing import Any

_VOLUMES = {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"}


def faults_of(template: dict[str, Any]) -> list[str]:
    """What is wrong with a pod template, in a few words each."""
    pod = template["spec"]
    (container,) = pod["containers"]
    return [
        *_pod_faults(pod),
        *_container_faults(container.get("securityContext", {})),
        *_resource_faults(container),
        *_volume_faults(pod["volumes"]),
    ]


def _pod_faults(pod: dict[str, Any]) -> list[str]:
    context = pod.get("securityContext", {})
    rules = {
        "may run as root": context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0,
        "no seccomp profile": context.get("seccompProfile") == {"type": "RuntimeDefault"},
        "has service links": pod.get("enableServiceLinks") is False,
        "says nothing of its token": isinstance(pod.get("automountServiceAccountToken"), bool),
        "shares a namespace of the node": not any(
            pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
        ),
        "says nothing of the time it may take to end": pod.get("terminationGracePeriodSeconds", 0) > 0,
    }
    return [fault for fault, kept in rules.items() if not kept]


def _container_faults(context: dict[str, Any]) -> list[str]:
    rules = {
        "may write its root": context.get("readOnlyRootFilesystem") is True,
        "keeps capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "may gain privileges": context.get("allowPrivilegeEscalation") is False,
        "is privileged": not context.get("privileged"),
    }
    return [fault for fault, kept in rules.items() if not kept]


def _resource_faults(container: dict[str, Any]) -> list[str]:
    requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
    threads = [entry.get("valueFrom") for entry in container["env"] if entry["name"] == "OMP_NUM_THREADS"]
    # The digest, or a tag that is not a moving one.
    _, _, version = container["image"].rpartition("/")[2].partition("@" if "@" in container["image"] else ":")
    rules = {
        "memory requests differ from limits": requests["memory"] == limits["memory"],
        "no CPU limit to take the threads from": "cpu" in requests and "cpu" in limits,
        "threads do not follow the CPU limit": threads == [{"resourceFieldRef": {"resource": "limits.cpu"}}],
        "image without a version": version not in ("", "latest"),
    }
    return [fault for fault, kept in rules.items() if not kept]


def _volume_faults(volumes: list[dict[str, Any]]) -> list[str]:
    kinds = [next(kind for kind in volume if kind != "name") for volume in volumes]
    faults = [f"a volume of kind {kind}" for kind in kinds if kind not in _VOLUMES]
    unlimited = [v for v in volumes if "emptyDir" in v and "sizeLimit" not in v["emptyDir"]]
    return faults + ["a folder without a limit"] * len(unlimited)
