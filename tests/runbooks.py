"""The runbooks page as tests read it."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "runbooks.md"


def sections() -> dict[str, str]:
    """Heading → text of every section of the second level."""
    _, *parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0].strip(): part.partition("\n")[2] for part in parts}


def queries() -> list[str]:
    """Every PromQL query of the page, one a line in its blocks."""
    blocks = re.findall(r"^```promql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]
