"""List what users can import: the public names of every public module, one module a line.

A folder with ``__all__`` in its ``__init__`` speaks for its modules: they are its own, as what
begins with an underscore is. The command line is used by its commands: its modules are its own.

``python -m tools.public_names > tests/docs/public_names.txt`` renews the list that a test compares.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent

APPLICATIONS = {"sched_cli"}
_HELPERS = {"Logger", "ParamSpec", "TypeVar"}
"""Calls whose result serves the module alone, whatever its name."""


def listing() -> str:
    """Return the list of all packages, sorted."""
    lines: list[str] = []
    for source in ROOT.glob("packages/*/src"):
        for path in source.rglob("*.py"):
            parts = path.relative_to(source).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if "._" not in name and not _is_spoken_for(path, source):
                names = sorted(names_of(path.read_text(encoding="utf-8")))
                lines.append(f"{name}: {' '.join(names)}".rstrip())
    return "".join(f"{line}\n" for line in sorted(lines))


def _is_spoken_for(path: Path, source: Path) -> bool:
    if path.name != "__init__.py" and path.parent.parent == source:
        return path.parent.name in APPLICATIONS
    inside = path.parent if path.name != "__init__.py" else path.parent.parent
    folders = [each for each in (inside, *inside.parents) if source in each.parents][:-1]
    return any(
        _all(ast.parse((each / "__init__.py").read_text(encoding="utf-8"))) is not None
        for each in folders
    )


def _all(tree: ast.Module) -> set[str] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        value = getattr(node, "value", None)
        if value is not None and "__all__" in _targets(targets):
            return set(ast.literal_eval(value))
    return None


def names_of(text: str) -> set[str]:
    """Return the public names of one module: ``__all__``, or what it defines itself."""
    tree = ast.parse(text)
    declared = _all(tree)
    if declared is not None:
        return declared
    return {name for name in _defined(tree.body) if not name.startswith("_")}


def _defined(body: Sequence[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign() if not _helps(node.value):
                yield from _targets(node.targets)
            case ast.AnnAssign():
                yield from _targets([node.target])
            case ast.If():
                yield from _defined([*node.body, *node.orelse])
            case ast.Try():
                yield from _defined([*node.body, *node.orelse])
            case _:
                pass


def _targets(targets: Sequence[ast.expr]) -> Iterator[str]:
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Tuple):
            yield from _targets(target.elts)


def _helps(value: ast.expr) -> bool:
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in _HELPERS
    )


if __name__ == "__main__":
    sys.stdout.write(listing())
