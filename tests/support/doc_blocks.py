"""What the documentation says in code: its blocks, the commands in them, links, names of tests."""

import ast
import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.is_file()]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a language, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])
        for match in _FENCE.finditer(text)
        if match[1] == language
    ]


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, split at && and |, comments left out."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        command: list[str] = []
        for word in [*words, "&&"]:
            if word in ("&&", "|"):
                found += [command] if command else []
                command = []
            else:
                command.append(word)
    return found


def inline_commands(page: Path) -> list[str]:
    """`m3jax ...` within a paragraph or a table."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8")).replace(r"\|", "|")
    spans = re.findall(r"`([^`\n]+)`", text)
    return [span for span in spans if re.match(r"(srun .*)?m3jax [a-z]", span)]


def links(page: Path) -> list[str]:
    """Relative targets of links and pictures."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [t for t in targets if not re.match(r"[a-z]+:|#", t)]


def named_tests(page: Path) -> set[tuple[str, str]]:
    """(file, test or "") of every `room/test_x.py` and `room/test_x.py::test_y` in a page.

    Files are relative to tests/; a page may name them with or without that prefix.
    """
    text = page.read_text(encoding="utf-8")
    return set(re.findall(r"(?:\btests/)?((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?", text))


def defined_tests(file: str) -> set[str]:
    """The names of a file's tests, and "" for the file itself."""
    path = ROOT / "tests" / file
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {"", *(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
