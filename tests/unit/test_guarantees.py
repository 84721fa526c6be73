"""docs/guarantees.md: every promise names tests, and every test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

from aggregator.verify import Invariant

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def promises(page: str) -> dict[str, list[str]]:
    """The tests that each promise names, by the promise's sentence."""
    blocks = re.split(r"^### ", page.split("\n## What is not promised", maxsplit=1)[0], flags=re.MULTILINE)[1:]
    return {block.partition("\n")[0]: re.findall(r"^- `([^`]+)`$", block, flags=re.MULTILINE) for block in blocks}


def exists(test: str) -> bool:
    """Whether a node id names a test function in a file of the tests."""
    path, separator, name = test.partition("::")
    file = ROOT / path
    if not separator or not path.startswith("tests/") or not file.is_file():
        return False
    functions = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if hasattr(node, "name")]
    return name.startswith("test_") and name in {node.name for node in functions}


def faults(page: str) -> list[str]:
    """What is wrong with a page of promises."""
    named = promises(page)
    wrong = [f"names no test: {promise}" for promise, tests in named.items() if not tests]
    wrong += [f"does not exist: {test}" for tests in named.values() for test in tests if not exists(test)]
    return wrong + [
        f"is not one sentence, or rests on nothing: {promise}"
        for promise in named
        if not promise.endswith(".") or f"{promise}\n\nRests on: " not in page
    ]


def test_every_promise_names_tests_that_exist() -> None:
    assert faults(PAGE) == []


def test_every_invariant_is_promised() -> None:
    marked = {promise.partition(".")[0] for promise in promises(PAGE)}
    assert {one.value for one in Invariant} <= marked


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("### It flies.\n\nRests on: air.\n\nShown by:\n", "names no test: It flies."),
        (
            "### It flies.\n\nRests on: air.\n\n- `tests/unit/test_guarantees.py::test_it_flies`\n",
            "does not exist: tests/unit/test_guarantees.py::test_it_flies",
        ),
        (
            "### It flies.\n\n- `tests/unit/test_guarantees.py::test_every_invariant_is_promised`\n",
            "is not one sentence, or rests on nothing: It flies.",
        ),
    ],
)
def test_a_promise_without_a_test_or_with_one_that_is_not_there_is_a_fault(block: str, fault: str) -> None:
    assert faults(block) == [fault]
