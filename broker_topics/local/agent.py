"""Kafka's own metrics for Prometheus: a Java agent inside each node's JVM."""

from dataclasses import dataclass
from pathlib import Path

from broker_topics.local.jars import Progress, ensure_jars, read_lock

LOCK_FILE = Path(__file__).with_name("metrics.lock")
RULES_FILE = Path(__file__).with_name("agent.yml")


@dataclass(frozen=True, slots=True)
class MetricsAgent:
    """Shows one node's metrics at http://127.0.0.1:`port`/metrics, this machine only, while the node runs."""

    jar: Path
    port: int

    @property
    def java_option(self) -> str:
        """What the JVM must be started with; a port in use ends it at once."""
        return f"-javaagent:{self.jar}=127.0.0.1:{self.port}:{RULES_FILE}"


def ensure_agent(progress: Progress) -> Path:
    """The agent's jar, verified; fetched on first use. Raises as `ensure_jars` does."""
    (jar,) = read_lock(LOCK_FILE.read_text())
    return ensure_jars(progress, lock=LOCK_FILE) / jar.file_name
