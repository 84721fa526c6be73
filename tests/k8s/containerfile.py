"""Reads a Containerfile: its stages, what is wrong with them, and what its COPY and RUN lines do, without an engine."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_CONTINUED = re.compile(r"\\\n\s*")
_SHELLED = frozenset({"sudo", "ssh", "vim", "shutdown", "service", "ps", "free", "top", "kill", "mount"})


@dataclass(slots=True)
class Stage:
    """One FROM and what follows it: (instruction, arguments)."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages_of(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments that stand before the first FROM, and the stages in order."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in _CONTINUED.sub(" ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].steps.append((word, rest.strip()))
    return arguments, stages


def faults_of(text: str, *, targets: tuple[str, ...]) -> list[str]:
    """What a linter would say, and what we want besides, of the file and the stages that become images."""
    arguments, stages = stages_of(text)
    named = {stage.name: stage for stage in stages}
    faults = []
    for stage in stages:
        base = re.sub(r"\$\{?(\w+)\}?", lambda found: arguments.get(found[1], ""), stage.base)
        if base not in named and not re.search(r"(@sha256:[0-9a-f]{64}|:\d+\.\d+\.\d+[\w.-]*)$", base):
            faults.append(f"base {base} is not pinned to a release or a digest")
        faults += [fault for word, rest in stage.steps for fault in _step_faults(word, rest)]
    for target in targets:
        lineage = list(_lineage(named, target))
        users = [rest for stage in lineage for word, rest in stage.steps if word == "USER"]
        if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0]):
            faults.append(f"{target} does not run as a number that is not root's")
        if any(word == "RUN" for stage in lineage for word, _ in stage.steps):
            faults.append(f"{target} carries what a RUN line left behind")
        entries = [rest for stage in lineage for word, rest in stage.steps if word in ("ENTRYPOINT", "CMD")]
        if not entries or not all(rest.startswith("[") for rest in entries):
            faults.append(f"{target} starts through a shell, which keeps signals to itself")
    return faults


def _lineage(named: Mapping[str, Stage], target: str) -> list[Stage]:
    """The stage and those that it is built upon, the nearest first."""
    found = [named[target]]
    while found[-1].base in named:
        found.append(named[found[-1].base])
    return found


def _step_faults(word: str, rest: str) -> list[str]:
    rules = {
        "ADD: COPY does what is needed and fetches nothing": word == "ADD",
        "MAINTAINER is no more": word == "MAINTAINER",
        "COPY takes the whole context": word == "COPY"
        and not rest.startswith("--from=")
        and rest.split(maxsplit=1)[0] == ".",
        "WORKDIR is not absolute": word == "WORKDIR" and not rest.startswith("/"),
        "secret in ENV or ARG": word in ("ENV", "ARG") and bool(re.search(r"(?i)(password|token|secret)\w*=", rest)),
        "apt leaves its lists behind": word == "RUN" and "apt-get install" in rest and "/var/lib/apt/lists" not in rest,
        "pip without hashes": word == "RUN" and _unhashed(rest),
        "a download without a check": word == "RUN" and bool(re.search(r"\b(curl|wget)\b", rest)),
        "a command that makes no sense in a build": word == "RUN" and bool(_SHELLED & set(rest.split())),
        "a folder is changed with cd": word == "RUN" and bool(re.search(r"(^|&&\s*)cd ", rest)),
    }
    return [fault for fault, broken in rules.items() if broken]


def _unhashed(command: str) -> bool:
    parts = [part for part in command.split("&&") if re.search(r"\bpip\b.* install ", part)]
    return any("--require-hashes" not in part and "--no-deps" not in part for part in parts)


def build(text: str, target: str, *, context: Path, root: Path, python: Path) -> dict[str, str]:
    """Do what the stages do for `target`, with `root` in place of / and `python` in place of the base image's.

    Args:    python: folder of the base's programs.
    Returns: the target's variables.
    """
    _, stages = stages_of(text)
    named = {stage.name: stage for stage in stages}
    needed = [*reversed(_lineage(named, target))]
    copied = re.findall(r"--from=([\w-]+)", " ".join(rest for stage in needed for _, rest in stage.steps))
    for name in copied:
        for stage in reversed(_lineage(named, name)):
            _perform(stage, context=context, root=root, python=python)
    variables: dict[str, str] = {}
    for stage in needed:
        for word, rest in stage.steps:
            if word == "ENV":
                variables |= dict(pair.split("=", 1) for pair in rest.split())
    return variables


def _perform(stage: Stage, *, context: Path, root: Path, python: Path) -> None:
    folder = root / "build"
    folder.mkdir(parents=True, exist_ok=True)
    for word, rest in stage.steps:
        if word == "COPY":
            *sources, goal = rest.split()
            for source in sources:
                place = folder / goal / Path(source).name if goal.endswith("/") else folder / goal
                place.parent.mkdir(parents=True, exist_ok=True)
                if (context / source).is_dir():
                    shutil.copytree(context / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(context / source, place)
        elif word == "RUN":
            command = re.sub(r"(?<=\s)/opt/", f"{root}/opt/", rest)
            # Bytecode is for an image's start; here it would take a third of the time.
            environment = os.environ | {"PATH": f"{python}:{os.environ['PATH']}", "PIP_NO_COMPILE": "1"}
            done = subprocess.run(
                ["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
