"""How much decides: ``python -m tools.decisions ce8c53c HEAD``, two commits compared.

Lines of code are those with neither only a comment nor a docstring on them. A branch is whatever
may go two ways: ``if``, a loop, a comprehension, ``and``, ``except``, ``case``. A place decides
about a claim if it calls what makes the execution of a claim that its worker did not end: it has
then found out that the claim was lost, or that what it held has been edited away.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from typing import NamedTuple

from tools.running import ROOT

CORE = "packages/sched-core/src/sched_core/"
MAKERS = {"abandoned_lines", "superseded_line", "of_hold"}
"""Functions that make such an execution, before and after the turn to pending occurrences."""
FORMER, RULES, ROW = f"{CORE}lifecycle.py", f"{CORE}_rules/", f"{CORE}row.py"
BRANCHES = (
    *(ast.If, ast.IfExp, ast.While, ast.For, ast.AsyncFor, ast.comprehension),
    *(ast.ExceptHandler, ast.match_case),
)
UNCOUNTED = {
    *(tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT),
    tokenize.ENDMARKER,
}


class Size(NamedTuple):
    """What there is to read."""

    lines: int
    code: int
    branches: int


def git(*arguments: str) -> str:
    return subprocess.run(
        ("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def size(source: str) -> Size:
    tree, documented = ast.parse(source), set[int]()
    branches = 0
    for node in ast.walk(tree):
        branches += isinstance(node, BRANCHES)
        if isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in UNCOUNTED
        for line in range(token.start[0], token.end[0] + 1)
    }
    return Size(len(source.splitlines()), len(code - documented), branches)


def decides_about_claims(source: str) -> bool:
    """Whether a module calls a maker; the module that defines it does not count."""
    nodes = list(ast.walk(ast.parse(source)))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    called = {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return bool(called & MAKERS) and not defined & MAKERS


def tell(commit: str) -> None:
    listed = git("ls-tree", "-r", "--name-only", commit, "--", "packages").splitlines()
    modules = [path for path in listed if "/src/" in path and path.endswith(".py")]
    if FORMER in modules:  # the new rules lay there for a while, and nothing asked them
        modules = [path for path in modules if not path.startswith(RULES)]
    sources = {path: git("show", f"{commit}:{path}") for path in modules}
    print(f"{commit}: {git('log', '-1', '--format=%h %s', commit).strip()}")
    for title, chosen in (
        ("rules", [path for path in modules if path == FORMER or path.startswith(RULES)]),
        ("row", [ROW]),
    ):
        sizes = [size(sources[path]) for path in chosen]
        lines, code, branches = (sum(each) for each in zip(*sizes, strict=True))
        print(f"  {title}: {lines} lines, {code} of code, {branches} branches, {len(sizes)} files")
    places = [path for path, source in sources.items() if decides_about_claims(source)]
    print(f"  places that decide about a claim: {len(places)}")
    for path in places:
        print(f"    {path}")


if __name__ == "__main__":
    for _commit in sys.argv[1:] or ("HEAD",):
        tell(_commit)
