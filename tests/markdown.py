"""Reads the project's own Markdown pages, so that tests can hold them to the code."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_FENCE = re.compile(r"^(```+)([^\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_EXAMPLE = re.compile(r"<!-- example: ([^>]+) -->\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every Markdown page that is part of the project, as git sees it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split() or [
        str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    ]
    return sorted(ROOT / name for name in names if (ROOT / name).is_file())


def fences(text: str) -> list[tuple[str, str]]:
    """Every fenced block of a page: what stands behind the opening fence, and the content."""
    return [(info.strip(), content) for _, info, content in _FENCE.findall(text)]


def prose(text: str) -> str:
    """A page without fenced blocks and comments."""
    return _COMMENT.sub("", _FENCE.sub("", text))


def headings(text: str) -> list[str]:
    """The headings of a page, in order."""
    return re.findall(r"^#+ +(.+?) *$", prose(text), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that a reader on GitHub can link to."""
    found: set[str] = set()
    for heading in headings(text):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        number, anchor = 0, plain
        while anchor in found:
            number += 1
            anchor = f"{plain}-{number}"
        found.add(anchor)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def section(text: str, heading: str) -> str:
    """What stands below one heading, up to the next of any level."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if re.fullmatch(rf"#+ +{re.escape(heading)} *", line))
    stop = next((n for n in range(start + 1, len(lines)) if lines[n].startswith("#")), len(lines))
    return "\n".join(lines[start + 1 : stop])


def tables(text: str) -> list[list[dict[str, str]]]:
    """Every table of a text, each a list of rows by column name; cells without backquotes around the whole."""
    found: list[list[dict[str, str]]] = []
    block: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif block:
            names, rows = block[0], block[2:]
            found.append([dict(zip(names, row, strict=True)) for row in rows])
            block = []
    return found


def bare(cell: str) -> str:
    """A cell without backquotes and emphasis."""
    return cell.strip("`*")


def examples(text: str) -> dict[str, str]:
    """The blocks of a page that are marked as examples, by name."""
    return {name.strip(): content for name, content in _EXAMPLE.findall(text)}


def hex_bytes(block: str) -> bytes:
    """The bytes of an example: pairs of hexadecimal digits up to the comment, which two spaces set off."""
    return bytes.fromhex("".join(re.split(r" {2,}", line.strip())[0] for line in block.splitlines()))
