"""NULL as part of a statement, instead of bound to it.

For each None that is bound, Python's sqlite3 looks for an adapter, and drops the exception which
says that there is none; it does so for truth values, too. The rows of a job and of an execution
have some twenty: to bind them would take longer than SQLite takes to store both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from sched_sql._shared.moments import Row


class Form(NamedTuple):
    """How rows are bound that have no values in the same places.

    Attributes:
        statement: The statement with NULL in these places.
        values: Returns what is bound of a row.
        nulls: Returns what is not bound.
        nothing: What that is if the row is one of these.
    """

    statement: str
    values: Callable[[Row], Any]
    nulls: Callable[[Row], Any]
    nothing: Row


def execute(connection: sqlite3.Connection, statement: str, row: Row) -> sqlite3.Cursor:
    """Execute a statement, in which every question mark is a value's place."""
    form = _form(statement, len(row), _empty(row))
    return connection.execute(form.statement, form.values(row))


def execute_many(connection: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> int:
    """Execute a statement for each row, in order; return how many rows it changed."""
    changed = done = 0
    while done < len(rows):
        form = _form(statement, len(rows[done]), _empty(rows[done]))
        _, values_of, nulls_of, nothing = form
        values = []
        for row in rows[done:] if done else rows:
            if nulls_of(row) != nothing:
                break
            values.append(values_of(row))
        changed += connection.executemany(form.statement, values).rowcount
        done += len(values)
    return changed


def _empty(row: Row) -> tuple[int, ...]:
    return tuple([place for place, value in enumerate(row) if value is None])


@lru_cache(maxsize=256)
def _form(statement: str, width: int, empty: tuple[int, ...]) -> Form:
    if len(empty) < 2:  # one place would be got as itself, not as a tuple
        return Form(statement, tuple, _nothing, ())
    bound = [place for place in range(width) if place not in empty]
    first, *others = statement.split("?")
    marks = ("NULL" if place in empty else "?" for place in range(width))
    text = first + "".join(mark + other for mark, other in zip(marks, others, strict=True))
    values = itemgetter(*bound) if len(bound) > 1 else lambda row: tuple(row[n] for n in bound)
    return Form(text, values, itemgetter(*empty), (None,) * len(empty))


def _nothing(_: Row) -> Row:
    return ()
