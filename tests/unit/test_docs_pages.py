"""Pages must not send a reader anywhere that is not there, nor show a command that is not one."""

import ast
import inspect
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.main import get_command

from headwater import LocalResult, Worker
from headwater.cli import COMMANDS, build
from tests.markdown import ROOT, anchors, fences, pages, prose

PAGES = pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SHELLS = ("bash", "sh", "console", "shell")
PAGE = pytest.mark.parametrize("page", PAGES, ids=NAMES)

_LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)[^)]*\)")
_INLINE = re.compile(r"`(headwater [^`]+)`")


def links(text: str) -> list[str]:
    """Targets of a page's links that stay within the project."""
    return [target for target in _LINK.findall(prose(text)) if not re.match(r"[a-z]+:", target)]


def command_lines(text: str) -> list[str]:
    """Every `headwater …` line in a shell block, with continued lines joined and comments cut off."""
    found = []
    for info, content in fences(text):
        if info not in SHELLS:
            continue
        for line in re.sub(r"\\\n\s*", " ", content).splitlines():
            command = line.strip().removeprefix("$ ").split(" #")[0].rstrip("& ").strip()
            found += [part.strip() for part in command.split("&&") if part.strip().startswith("headwater ")]
    return found


def inline_commands(text: str) -> list[str]:
    """Every `headwater …` within a sentence, unless it leaves something open or chooses among several."""
    return [command for command in _INLINE.findall(prose(text)) if not re.search(r"[|…\[]", command)]


def parse(command_line: str) -> None:
    """Take one command line through the real command line's parser; nothing is run."""
    _, *arguments = shlex.split(command_line)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    assert wanted in COMMANDS, f"{wanted} is no command"
    command = get_command(build(wanted))
    context = command.make_context("headwater", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)


def test_there_are_pages_to_check() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/protocol.md", "docs/architecture.md", "docs/first-fleet.md"} <= set(
        NAMES
    )


@PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = unquote(target).partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target}: no such file"
        assert there.is_relative_to(ROOT), f"{target} leads out of the project"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{target}: no such heading"


@PAGE
def test_every_command_in_a_block_is_one_that_the_command_line_takes(page: Path) -> None:
    for command in command_lines(page.read_text(encoding="utf-8")):
        parse(command)


@PAGE
def test_every_command_in_a_sentence_has_its_name_and_options_right(page: Path) -> None:
    for command in inline_commands(page.read_text(encoding="utf-8")):
        error = _refusal(command)
        assert error is None or "Missing" in error, f"{command}: {error}"


def _refusal(command: str) -> str | None:
    """What the parser has against a command line; None if nothing."""
    try:
        parse(command)
    except Exception as error:
        return f"Missing command {error}" if type(error).__name__ == "NoArgsIsHelpError" else str(error)
    return None


@PAGE
def test_every_python_block_compiles(page: Path) -> None:
    for info, content in fences(page.read_text(encoding="utf-8")):
        if info == "python":
            compile(content, page.name, "exec")


@PAGE
def test_arguments_shown_for_a_worker_and_its_result_exist(page: Path) -> None:
    known = {call.__name__: inspect.signature(call).parameters for call in (Worker, LocalResult)}
    for info, content in fences(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(content)) if info == "python" else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
                assert {keyword.arg for keyword in node.keywords} <= set(known[node.func.id])


def test_a_misspelt_option_and_an_unknown_command_are_noticed() -> None:
    with pytest.raises(Exception, match="tsk"):
        parse("headwater aggregator --tsk watch")
    with pytest.raises(AssertionError, match="agregator"):
        parse("headwater agregator --task watch")


def test_files_named_on_the_architecture_page_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    for line in text.splitlines():
        folder = ROOT
        for name in re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?|[a-z_]+\.py|rules/|codecs/)`", line):
            places = (ROOT / name, folder / name, folder.parent / name)
            there = next((path for path in places if path.exists()), None)
            assert there is not None, f"{name} does not exist"
            folder = there if there.is_dir() else there.parent
