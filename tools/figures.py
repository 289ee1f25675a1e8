"""Figures of the tree: ``python -m tools.figures [ROOT]``, for comparing one revision with another.

For each package: lines, modules, imports between its modules, imports between its folders, and the
longest file. For sched-core: conditionals on two or more attributes of a run outside its own file.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

RUN = frozenset({
    "phase", "why", "outcome", "decision", "finished_at", "started_at", "start", "worker",
    "in_thread", "offered", "expected", "written", "postponed", "ended", "overdue", "alone",
})  # fmt: skip
"""Attributes that say how far a run has come."""


def imports_of(tree: ast.Module, modules: set[str]) -> set[str]:
    """Return the modules of the package that a module imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            each = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (each & modules) or {node.module}
    return found & modules


def conditionals(tree: ast.Module) -> Iterator[ast.expr]:
    """Return the tests of a module that ask two or more attributes of a variable named run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            tests = [node.test]
        elif isinstance(node, ast.comprehension):
            tests = node.ifs
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.BoolOp):
            tests = [node.value]
        else:
            continue
        for test in tests:
            asked = {
                each.attr
                for each in ast.walk(test)
                if isinstance(each, ast.Attribute)
                and isinstance(each.value, ast.Name)
                and each.value.id == "run"
            }
            if len(asked & RUN) > 1:
                yield test


def main(root: Path) -> None:
    """Print the figures as a table of Markdown."""
    print("| package | lines | modules | imports between modules | between folders | longest |")
    print("|---|---|---|---|---|---|")
    asked = 0
    for package in sorted((root / "packages").glob("*/src/*")):
        if not (package / "__init__.py").exists():
            continue
        files = {
            ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
                ".__init__"
            ): path
            for path in package.rglob("*.py")
        }
        texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
        lines = {name: text.count("\n") for name, text in texts.items()}
        edges: set[tuple[str, str]] = set()
        for name, text in texts.items():
            tree = ast.parse(text)
            edges |= {(name, other) for other in imports_of(tree, set(files)) if other != name}
            if not name.endswith(".runs"):
                asked += len(list(conditionals(tree))) if package.name == "sched_core" else 0
        # A module of the first level is a room of its own, as a folder is.
        rooms = {
            (".".join(one.split(".")[:2]), ".".join(other.split(".")[:2])) for one, other in edges
        }
        between = len({(one, other) for one, other in rooms if one != other})
        longest = max(lines, key=lambda name: lines[name])
        print(
            f"| {package.name} | {sum(lines.values())} | {len(lines)} | {len(edges)} | {between} "
            f"| {longest}: {lines[longest]} |"
        )
    print(f"\nconditionals on two or more attributes of a run, outside its file: {asked}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent.parent)
