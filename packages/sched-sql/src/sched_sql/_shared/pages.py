"""Pages of listings: what a dialect asks its database for, and when a page is complete.

The filters are part of the statement, so a page costs what it shows. The statement lets through
what it cannot judge (a row that no version writes, a text with a NUL); after reading, the query
judges again, so a page may take several statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sched_core import (
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    Page,
    Undecodable,
    UndecodableExecution,
)
from sched_sql._shared.history import read_execution
from sched_sql._shared.moments import Row, micros
from sched_sql._shared.rules import after_prefix
from sched_sql._shared.standings import STATE


class JobPage:
    """Collects a page of jobs from the rows of one or more statements.

    Args:
        query: The filter of the jobs.
        after: The id after which the page begins.
        limit: The most jobs on the page.
    """

    def __init__(self, query: JobQuery, after: str | None, limit: int) -> None:
        self._query, self._limit = query, limit
        self.after = after
        """The id after which the next statement begins."""
        self._items: list[Job | Undecodable] = []

    @property
    def wanted(self) -> int:
        """How many rows the next statement asks for: one more tells that another page follows."""
        return self._limit + 1 - len(self._items)

    def take(
        self,
        rows: Sequence[Row],
        read: Iterable[Job | Undecodable | None],
        unlisted: Callable[[], list[Job | Undecodable]] = list,
    ) -> Page[Job | Undecodable] | None:
        """Take the rows of a statement; return the page once it is complete.

        Args:
            rows: The rows, which begin with the id.
            read: The jobs in them, ``None`` for a row without one.
            unlisted: Jobs that no statement lists; the last page ends with them.
        """
        items, limit, wanted = self._items, self._limit, self.wanted
        items += [job for job in read if job is not None and self._query.matches(job)]
        if len(items) > limit:
            return Page(items[:limit], items[limit - 1].id if limit else None)
        if len(rows) < wanted:
            return Page(items + unlisted(), None)
        self.after = rows[-1][0]
        return None


class ExecutionPage:
    """Collects a page of the history, as :class:`JobPage` one of jobs; the last column is ``seq``.

    Args:
        query: The filter of the executions.
        after: The ``seq``, as text, after which the page begins.
        limit: The most executions on the page.
    """

    def __init__(self, query: ExecutionQuery, after: str | None, limit: int) -> None:
        self._query, self._limit = query, limit
        self.after = after
        """The ``seq`` after which the next statement begins."""
        self._items: list[tuple[int, Execution | UndecodableExecution]] = []

    @property
    def wanted(self) -> int:
        """How many rows the next statement asks for."""
        return self._limit + 1 - len(self._items)

    def take(self, rows: Sequence[Row]) -> Page[Execution | UndecodableExecution] | None:
        """Take the rows of a statement; return the page once it is complete."""
        items, limit, wanted = self._items, self._limit, self.wanted
        matches = self._query.matches
        items += [(row[-1], each) for row in rows if matches(each := read_execution(row))]
        if len(items) > limit:
            following = str(items[limit - 1][0]) if limit else None
            return Page([each for _, each in items[:limit]], following)
        if len(rows) < wanted:
            return Page([each for _, each in items], None)
        self.after = str(rows[-1][-1])
        return None


class Filter:
    """Conditions that a row must meet, and the values in them.

    Args:
        mark: What the dialect's driver takes for a value's place.
        conditions: Conditions without values.
    """

    def __init__(self, mark: str, *conditions: str) -> None:
        self._mark = mark
        self.conditions = list(conditions)
        self.values: list[Any] = []

    def __str__(self) -> str:
        """Return the conditions as one."""
        return " AND ".join(self.conditions)

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition, with a ``?`` at the place of each value."""
        self.conditions.append(condition.replace("?", self._mark))
        self.values += values

    def add_job_prefix(self, query: JobQuery, begins: str, *values: Any) -> None:
        """Have ids begin as the query says.

        Args:
            query: Has a prefix.
            begins: The dialect's condition for a text that begins with another one.
            values: The values in it.
        """
        self.add(f"id >= ? AND {begins}", query.id_prefix, *values)
        end = after_prefix(query.id_prefix)
        if end is not None:
            self.add("id < ?", end)

    def add_job_state(self, query: JobQuery) -> None:
        """Have state, group, queue and uid be those of the query."""
        if query.state is not None:
            self.add(f"{STATE} = ?", query.state.value)
        if query.group is not None:
            self.add("group_name = ?", query.group)
        if query.queue is not None:
            self.add("queue = ?", query.queue)
        if query.uid is not None:
            self.add("uid = ?", query.uid)

    def add_times(self, query: ExecutionQuery, no_age: str) -> None:
        """Have the end of an execution lie between the query's, unless ``no_age`` holds."""
        if query.since is not None:
            self.add(f"(finished_at >= ? OR {no_age})", micros(query.since))
        if query.until is not None:
            self.add(f"(finished_at < ? OR {no_age})", micros(query.until))

    def add_final(self, query: ExecutionQuery) -> None:
        """Have executions be final, or not, as the query says."""
        if query.final is not None:
            self.add("final = ?", query.final)
