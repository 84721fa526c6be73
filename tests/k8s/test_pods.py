"""What every pod promises: it keeps to the restricted profile, and its probes, ports and variables are the code's."""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from broker_topics.task import TaskSettings
from headwater.settings import AggregatorSettings, known_settings, load
from monitoring.health import HealthServer, Readiness
from monitoring.metrics import Metrics
from tests.k8s.agreement import serving_faults
from tests.k8s.manifests import OVERLAYS, REFERENCE, Resource, environment, pick, pod_templates, resources
from tests.k8s.rules import faults_of

CASES = [(overlay, name) for overlay in OVERLAYS for name in ("aggregator", "evaluator", "gateway", "task-create")]
OF_KUBERNETES = {"TASK", "DEVICE", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR", "HOME"}
"""Variables for the example's own code and for libraries."""


def template_of(overlay: str, name: str) -> tuple[list[Resource], Resource]:
    found = resources(overlay)
    return found, dict(pod_templates(found))[name]


def container_of(template: Resource) -> Resource:
    (container,) = template["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize(("overlay", "name"), CASES)
def test_every_pod_keeps_to_the_rules(overlay: str, name: str) -> None:
    _, template = template_of(overlay, name)
    assert faults_of(template) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda pod, box: pod["securityContext"].update(runAsNonRoot=False), "may run as root"),
        (lambda pod, box: pod["securityContext"].pop("seccompProfile"), "no seccomp profile"),
        (lambda pod, box: box["securityContext"].update(readOnlyRootFilesystem=False), "may write its root"),
        (lambda pod, box: box["securityContext"]["capabilities"].update(drop=[]), "keeps capabilities"),
        (lambda pod, box: box["securityContext"].update(allowPrivilegeEscalation=True), "may gain privileges"),
        (lambda pod, box: box["resources"]["limits"].update(memory="2Gi"), "memory requests differ from limits"),
        (lambda pod, box: box["env"].remove(_threads(box)), "threads do not follow the CPU limit"),
        (lambda pod, box: pod.update(enableServiceLinks=True), "has service links"),
        (lambda pod, box: pod.pop("automountServiceAccountToken"), "says nothing of its token"),
        (lambda pod, box: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "a volume of kind hostPath"),
        (lambda pod, box: box.update(image="headwater:latest"), "image without a version"),
        (lambda pod, box: pod["volumes"][0]["emptyDir"].pop("sizeLimit"), "a folder without a limit"),
    ],
)
def test_a_pod_with_one_fault_is_refused(change, fault) -> None:  # type: ignore[no-untyped-def]
    _, template = template_of("production", "aggregator")
    change(template["spec"], template["spec"]["containers"][0])
    assert faults_of(template) == [fault]


def _threads(container: Resource) -> Resource:
    (entry,) = (entry for entry in container["env"] if entry["name"] == "OMP_NUM_THREADS")
    return dict(entry)


def test_only_the_aggregator_has_a_token_and_may_touch_one_lease_only() -> None:
    found = resources("production")
    tokens = {name: template["spec"]["automountServiceAccountToken"] for name, template in pod_templates(found)}
    assert tokens == {"aggregator": True, "evaluator": False, "gateway": False, "task-create": False}
    assert all(account["automountServiceAccountToken"] is False for account in pick(found, "ServiceAccount"))
    (role,) = pick(found, "Role")
    lease = environment(found, template_of("production", "aggregator")[1])["HEADWATER_LEASE_NAME"]
    assert role["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [lease],
            "verbs": ["get", "update"],
        },
    ]
    assert not [r for r in found if r["kind"].startswith("Cluster")]


@pytest.mark.parametrize(("overlay", "name"), CASES)
def test_every_variable_is_a_setting_with_a_value_that_it_takes(
    overlay: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, template = template_of(overlay, name)
    variables = environment(found, template)
    ours = {variable for variable in variables if variable.startswith("HEADWATER_")}
    assert ours <= {setting.variable for setting in known_settings()}
    assert variables.keys() - ours <= OF_KUBERNETES
    for variable in ours:
        monkeypatch.setenv(variable, variables[variable].replace(REFERENCE, "filled-in-"))
    settings = load()
    assert settings.connection.encrypted
    assert settings.connection.security_protocol == ("SSL" if overlay == "production" else "SASL_SSL")
    assert settings.log.format == "json"


@pytest.fixture
def served() -> Iterator[HealthServer]:
    with HealthServer(Metrics().registry, heartbeat_age_s=lambda: 0.0, readiness=Readiness()) as server:
        yield server


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_for_pages_that_are_served_on_the_port_that_is_listened_on(
    overlay: str, served: HealthServer
) -> None:
    assert serving_faults(resources(overlay), lambda page: _status(served.port, page)) == []


def set_variable(name: str, value: str) -> Callable[[Resource], None]:
    """A change of one of the container's variables."""

    def change(box: Resource) -> None:
        (entry,) = (entry for entry in box["env"] if entry["name"] == name)
        entry["value"] = value

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda box: box["ports"][0].update(containerPort=9465), "ports: [{'containerPort': 9465, 'name': 'metrics'}]"),
        (lambda box: box["ports"][0].update(name="http"), "ports: [{'containerPort': 9464, 'name': 'http'}]"),
        (set_variable("HEADWATER_AGGREGATOR_LISTEN_PORT", "9465"), "listen port: 9465 instead of 9464"),
        (set_variable("HEADWATER_AGGREGATOR_LISTEN_HOST", "127.0.0.1"), "listen host: 127.0.0.1 instead of 0.0.0.0"),
        (
            lambda box: box["livenessProbe"]["httpGet"].update(path="/healthz"),
            "livenessProbe: ('metrics', '/healthz', 404)",
        ),
        (
            lambda box: box["livenessProbe"]["httpGet"].update(path="/readyz"),
            "livenessProbe: ('metrics', '/readyz', 503)",
        ),
        (
            lambda box: box["readinessProbe"]["httpGet"].update(path="/livez"),
            "readinessProbe: ('metrics', '/livez', 200)",
        ),
        (lambda box: box["startupProbe"]["httpGet"].update(port="http"), "startupProbe: ('http', '/startupz', 503)"),
        (lambda box: box.pop("startupProbe"), "startupProbe: (None, None, 404)"),
    ],
)
def test_a_port_or_probe_with_one_fault_is_seen(  # type: ignore[no-untyped-def]
    change, fault: str, served: HealthServer
) -> None:
    found, template = template_of("production", "aggregator")
    change(template["spec"]["containers"][0])
    (seen,) = serving_faults(found, lambda page: _status(served.port, page))
    assert seen.startswith(fault)


def test_a_page_that_the_server_has_no_more_is_seen() -> None:
    moved = {"/startupz": 503, "/livez": 404, "/readyz": 503}
    assert serving_faults(resources("production"), lambda page: moved[page]) == [
        "livenessProbe: ('metrics', '/livez', 404) instead of ('metrics', '/livez', 200)"
    ]


def _status(port: int, page: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_blocked_event_loop_is_restarted_only_after_its_own_limit() -> None:
    probe = container_of(template_of("production", "aggregator")[1])["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= AggregatorSettings().max_heartbeat_age_s


def test_a_device_has_longer_to_end_than_its_training_may_take() -> None:
    from worker.shell import _PRODUCE_GRACE_S

    grace_s = template_of("production", "gateway")[1]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > 30.0 + _PRODUCE_GRACE_S


def test_the_job_s_settings_are_settings_of_a_task() -> None:
    arguments = container_of(template_of("production", "task-create")[1])["args"]
    pairs = dict(a.removeprefix("--set=").split("=") for a in arguments if a.startswith("--set="))
    assert TaskSettings.from_pairs(pairs).buffer_size == 2


def test_one_aggregator_of_two_may_go_at_a_time_and_they_lie_on_different_nodes() -> None:
    found = resources("production")
    (deployment,) = pick(found, "Deployment", "aggregator")
    assert deployment["spec"]["replicas"] == 2
    (budget,) = pick(found, "PodDisruptionBudget", "aggregator")
    assert budget["spec"]["maxUnavailable"] == 1
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    spread = {
        rule["topologyKey"]: rule["whenUnsatisfiable"]
        for rule in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    }
    assert spread == {"kubernetes.io/hostname": "DoNotSchedule", "topology.kubernetes.io/zone": "ScheduleAnyway"}


def test_pods_that_are_not_ready_hold_up_no_drain_of_their_node() -> None:
    budgets = pick(resources("production"), "PodDisruptionBudget")
    assert {b["spec"]["unhealthyPodEvictionPolicy"] for b in budgets} == {"AlwaysAllow"}


def test_nobody_scales_the_single_writer_by_load() -> None:
    assert not [r for overlay in OVERLAYS for r in resources(overlay) if "Autoscaler" in r["kind"]]
