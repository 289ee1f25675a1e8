"""Find what breaks the rules of prose in CONTRIBUTING.md, as far as a program can see it.

``python -m tools.prose [PATH…]`` lists what breaks them; without a path, in the whole project.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LONGEST = 35
"""Words of a sentence in a page."""

HOUSE = (
    "anew",
    "annals",
    "beside",
    "by itself",
    "fate",
    "fates",
    "for ever",
    "holdings",
    "nobody",
    "somebody",
    "stand",
    "stands",
    "stood",
    "whoever",
    "whomever",
    "whosever",
)
"""Words that the glossary has replaced by the field's own."""

_LOST = (
    r"(Of|That|Which|Whose|With|By|As|For|From|To|In|Until|Only|At|Because|Like|Than|On|Under"
    r"|Behind|Without|So|Those|Among|Not|Such|Inside"
)
FRAGMENT = re.compile(_LOST + r"|When|Where|Since)\b")
"""How a sentence begins that has lost its subject."""
FRAGMENT_OF_ENTRY = re.compile(_LOST + r")\b")
"""The same of an argument's or attribute's description, which may say when or where."""

_HOUSE = re.compile(
    r"(?<![a-z])(" + "|".join(word.replace(" ", r"[\s_]+") for word in HOUSE) + r")(?![a-z])",
    re.IGNORECASE,
)
_ENTRY = re.compile(r"^\s{4,}(?:\*{0,2}\w+|[A-Z]\w+): (?P<text>\S.*)$")
_SECTION = re.compile(r"^\s*(Args|Attributes|Returns|Raises|Yields):\s*$")


def findings(path: Path) -> list[str]:
    """Return what breaks the rules in one file, a line each."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    found = _of_page(text) if path.suffix == ".md" else _of_code(text)
    return [f"{name}:{line}: {what}" for line, what in sorted(set(found))]


def pages() -> list[Path]:
    """Return the pages that people read; what was decided and released before stays as it was."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("packages/*/*.md")]
    return sorted(
        page
        for page in found
        if not (page.is_symlink() or page.name == "CHANGELOG.md" or "adr" in page.parts)
    )


def modules() -> list[Path]:
    """Return the files of code whose words users and developers read."""
    folders = ("packages/*/src/**/*.py", "examples/**/*.py", "tools/*.py")
    found = [path for folder in folders for path in ROOT.glob(folder)]
    return sorted(path for path in found if path != Path(__file__))


def _house(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        for match in _HOUSE.finditer(line):
            yield number, f"house word: {match[0]!r}"


def _of_page(text: str) -> Iterator[tuple[int, str]]:
    prose = re.sub(
        r"```.*?```", lambda block: re.sub(r"[^\n]", "", block[0]), text, flags=re.DOTALL
    )
    yield from _house(prose)
    for start, paragraph in _paragraphs(prose):
        for sentence in re.split(r"(?<=[.!?:;])\s+(?=[\"“(`*\[]*[A-Z0-9`])", paragraph):
            count = len(re.findall(r"[^\s|]*\w[^\s|]*", sentence))
            if count > LONGEST:
                yield start, f"a sentence of {count} words: {sentence[:60]!r}"


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Return paragraphs, items of lists and cells of tables, each with its line."""
    lines: list[str] = []
    begin = 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        bare = line.strip()
        if bare.startswith("|"):
            yield from ((number, cell.strip()) for cell in bare.strip("|").split(" | "))
            bare = ""
        new = not bare or bare.startswith("#") or re.match(r"([-*]|\d+\.) ", bare)
        if new and lines:
            yield begin, " ".join(lines)
            lines = []
        if bare:
            begin = begin if lines else number
            lines.append(bare)


def _of_code(text: str) -> Iterator[tuple[int, str]]:
    yield from _house(text)
    for line, docstring in _docstrings(ast.parse(text)):
        first = docstring.lstrip()
        if FRAGMENT.match(first):
            yield line, f"a docstring begins with a fragment: {first[:60]!r}"
        within = False
        for offset, each in enumerate(docstring.splitlines()):
            if _SECTION.match(each):
                within = True
            elif (
                within and (entry := _ENTRY.match(each)) and FRAGMENT_OF_ENTRY.match(entry["text"])
            ):
                yield line + offset, f"an entry begins with a fragment: {each.strip()[:60]!r}"


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return docstrings, and the strings below assignments that document attributes."""
    for node in ast.walk(tree):
        body: Any = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for place, each in enumerate(body):
            documents = place == 0 or isinstance(body[place - 1], ast.Assign | ast.AnnAssign)
            if documents and isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                value = each.value.value
                if isinstance(value, str):
                    yield each.lineno, value


def main(arguments: Iterable[str]) -> int:
    """List findings; return 1 where there are any."""
    wanted: list[Path] = []
    for each in arguments:
        path = Path(each).resolve()
        within = [p for p in [*pages(), *modules()] if path in {p, *p.parents}]
        wanted += within or [path]
    found = [line for path in wanted or [*pages(), *modules()] for line in findings(path)]
    print("\n".join(found) or "no findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
