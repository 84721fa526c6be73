"""Write jars.lock and metrics.lock of broker_topics/local: which jars the local broker needs, each with its SHA-256.

Run rarely, by whoever moves to another Kafka: `python scripts/lock_jars.py`. Maven (`mvn`) decides the versions,
because its mediation is the one that Kafka was released with; the broker itself needs no Maven.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

KAFKA = "4.4.0"
LOG4J = "2.25.1"
AGENT = "1.0.1"
FOLDER = Path(__file__).parent.parent / "broker_topics" / "local"
KAFKA_JARS = (
    ("org.apache.kafka", "kafka_2.13", KAFKA),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
    ("org.apache.logging.log4j", "log4j-api", LOG4J),
    ("org.apache.logging.log4j", "log4j-core", LOG4J),
)
AGENT_JARS = (("io.prometheus.jmx", "jmx_prometheus_javaagent", AGENT),)
KAFKA_HEAD = f"""\
# The jars of the local broker: Apache Kafka {KAFKA} with its dependencies and log4j {LOG4J}.
# group:artifact:version sha256; written by scripts/lock_jars.py.
"""
AGENT_HEAD = """\
# The Java agent that shows a broker's own metrics to Prometheus; fetched only where `--metrics-port` asks for it.
# group:artifact:version sha256; written by scripts/lock_jars.py.
"""


def pom(wanted: Sequence[tuple[str, str, str]]) -> str:
    """A project that depends on what is wanted (of Kafka's loggers the one for its slf4j 1.7, not slf4j2's)."""
    rows = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for group, artifact, version in wanted
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>headwater</groupId><artifactId>jars</artifactId><version>1</version>"
        f"<dependencies>{rows}</dependencies></project>"
    )


def resolve(folder: Path, wanted: Sequence[tuple[str, str, str]]) -> list[str]:
    """Lock lines of everything that Maven puts on the runtime class path, sorted."""
    (folder / "pom.xml").write_text(pom(wanted))
    goal = ["dependency:list", "dependency:copy-dependencies"]
    options = [
        "-DincludeScope=runtime",
        "-DoutputFile=list.txt",
        "-DoutputDirectory=jars",
        "-Dmdep.useRepositoryLayout",
    ]
    subprocess.run(["mvn", "-B", "-q", *goal, *options], cwd=folder, check=True)
    lines = []
    for row in (folder / "list.txt").read_text().splitlines():
        parts = row.strip().split(" ")[0].split(":")
        if len(parts) != 5 or parts[2] != "jar":
            continue
        group, artifact, _, version, _ = parts
        jar = folder / "jars" / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.jar"
        lines.append(f"{group}:{artifact}:{version} {hashlib.sha256(jar.read_bytes()).hexdigest()}")
    return sorted(lines)


def main() -> None:
    """Resolve with Maven, write the lock files."""
    for name, head, wanted in (("jars.lock", KAFKA_HEAD, KAFKA_JARS), ("metrics.lock", AGENT_HEAD, AGENT_JARS)):
        with tempfile.TemporaryDirectory() as folder:
            lines = resolve(Path(folder), wanted)
        (FOLDER / name).write_text(head + "\n".join(lines) + "\n")
        print(f"{FOLDER / name}: {len(lines)} jars")


if __name__ == "__main__":
    sys.exit(main())
