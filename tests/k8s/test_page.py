"""docs/kubernetes.md says what the code says, and names what exists."""

import re
import shlex

from broker_topics.access import ACCESS
from tests.k8s.containerfile import stages_of
from tests.k8s.manifests import OVERLAYS, resources
from tests.k8s.tools import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()


def test_the_table_of_rights_is_that_of_the_code() -> None:
    table = PAGE.partition("<!-- access: begin -->")[2].partition("<!-- access: end -->")[0]
    rows = [
        f"| `{role}` | `{topic}` | {', '.join(sorted(ops))} |" for role, t in ACCESS.items() for topic, ops in t.items()
    ]
    assert table.strip().splitlines()[2:] == rows


def test_there_are_ten_commands_and_they_name_what_exists() -> None:
    block = PAGE.partition("<!-- ten commands -->")[2].partition("```bash\n")[2].partition("```")[0]
    commands = [shlex.split(line) for line in block.strip().splitlines()]
    assert len(commands) == 10
    (built,) = [command for command in commands if command[0] == "docker"]
    assert (ROOT / built[built.index("-f") + 1]).exists()
    targets = {stage.name for stage in stages_of((ROOT / "k8s" / "Containerfile").read_text())[1]}
    assert built[built.index("--target") + 1] in targets
    images = {
        r["spec"]["template"]["spec"]["containers"][0]["image"] for r in resources("dev") if r["kind"] == "Deployment"
    }
    assert images == {built[built.index("-t") + 1]}
    (applied,) = [command for command in commands if "apply" in command]
    assert applied[-1] == "k8s/overlays/dev"
    there = {f"{r['kind'].lower()}/{r['metadata']['name']}" for r in resources("dev")} | {"lease/aggregator"}
    named = [word for command in commands for word in command if re.fullmatch(r"[a-z]+/[a-z-]+", word)]
    assert len(named) == 7
    assert set(named) <= there


def test_every_folder_is_told() -> None:
    folders = {
        f"k8s/{kind}/{path.name}" for kind in ("components", "overlays") for path in (ROOT / "k8s" / kind).iterdir()
    }
    assert folders <= set(re.findall(r"\| `(k8s/[\w/-]+)` \|", PAGE))
    assert {f"k8s/overlays/{overlay}" for overlay in OVERLAYS} <= folders
