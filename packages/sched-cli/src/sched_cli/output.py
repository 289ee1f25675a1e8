"""The only place that prints, on a terminal or into a pipe.

Ids, reasons and metadata are other people's text. This module escapes whatever cannot be printed,
so that no job clears a screen, sets a title or turns a line around.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

import typer
from attrs import field, frozen
from rich.cells import cell_len, set_cell_size

GAP = "  "
CUT = "…"
KEY = 45
"""The key's share of a narrow table, in percent; a longer key gets a line of its own."""
WIDTH = "COLUMNS"


def printable(text: str) -> str:
    r"""Return a text in one line, with what cannot be printed escaped as in Python: ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def json_text(value: Any, *, plain: bool = False, lines: bool = True) -> str:
    """Return JSON whose characters can all be printed.

    Args:
        value: What to write.
        plain: Whether the output has no umlauts.
        lines: Whether in lines, for people who look; else it is one line.
    """
    text = json.dumps(value, ensure_ascii=plain, indent=2 if lines else None)
    return "".join(
        sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text
    )


def print_json(value: Any, *, lines: bool = True) -> None:
    """Print a value for programs; with ``lines=False`` in one line."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    _write(sys.stdout, json_text(value, plain=plain, lines=lines))


def print_now() -> None:
    """Hand on what was printed: a pipe would keep it until it is full."""
    sys.stdout.flush()


@frozen
class Cell:
    """A text, printable, and its colour.

    Attributes:
        text: What is shown.
        colour: The colour's name, used where there are colours.
        bold: Whether the text is bold.
    """

    text: str = field(converter=printable)
    colour: str | None = None
    bold: bool = False

    def shown(self, *, coloured: bool) -> str:
        """Return the text, with the codes of its colour."""
        styled = coloured and self.text and (self.colour or self.bold)
        return typer.style(self.text, fg=self.colour, bold=self.bold) if styled else self.text


def say(*cells: str | Cell) -> None:
    """Print a line, with colours on a terminal only."""
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    _write(sys.stdout, "".join(_cell(cell).shown(coloured=coloured) for cell in cells))


def say_row(*cells: str | Cell) -> None:
    """Print the cells of a row with gaps between them; on a terminal the end is cut at its edge."""
    line, room = list[Cell](), edge()
    for number, cell in enumerate(map(_cell, cells)):
        text = (GAP if number else "") + cell.text
        if room is not None:
            if cell_len(text) > room:
                text = set_cell_size(text, room - 1) + CUT if room else ""
            room -= cell_len(text)
        line.append(Cell(text, cell.colour, cell.bold))
    say(*line)


def complain(text: str) -> None:
    """Print a line to standard error."""
    _write(sys.stderr, f"sched: {printable(text)}")


def _write(stream: TextIO, text: str) -> None:
    # Not by Typer's echo: it writes UTF-8 where the output was said to be ASCII.
    stream.write(f"{text}\n")


def edge() -> int | None:
    """Return the width of the terminal, ``None`` for a pipe, which has no edge."""
    if not sys.stdout.isatty():
        return None
    given = os.environ.get(WIDTH, "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def folded_to_edge(text: str, indent: int) -> list[str]:
    """Return the lines of a long text, which leave room for an indent on a terminal."""
    width = edge()
    if width is None:
        return [text]
    return textwrap.wrap(printable(text), max(width - indent, 20), break_on_hyphens=False) or [""]


@frozen
class Column:
    """A column of a table, and how it shrinks where the table is too wide.

    Attributes:
        title: The heading.
        least: The width down to which its texts are cut; ``None``: they are never cut.
        optional: Whether the column is left out before others are cut further.
        key: Whether the column names the row. A key is never cut, so that it can be copied: one
            that is too long has a line of its own.
    """

    title: str
    least: int | None = None
    optional: bool = False
    key: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> None:
    """Print a table: as wide as it needs to be into a pipe, within the edge on a terminal."""
    for line in layout(columns, [[_cell(cell) for cell in row] for row in rows], edge()):
        say(*line)


def layout(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None
) -> list[list[Cell]]:
    """Return the lines of a table.

    Args:
        columns: The columns; at most one of them is a key.
        rows: A cell for each column.
        width: Most characters in a line; ``None`` for any number.
    """
    table = [[Cell(column.title, bold=True) for column in columns], *map(list, rows)]
    shown = list(range(len(columns)))
    widths = [max(cell_len(row[index].text) for row in table) for index in shown]
    if width is not None:
        for index in reversed(range(len(columns))):
            if columns[index].optional and _least(columns, widths, shown, width) > width:
                shown.remove(index)
        _give_way(columns, table, widths, shown, width)
    lines = []
    for row in table:
        line: list[Cell] = []
        for index in shown:
            cell = row[index]
            if columns[index].key and cell_len(cell.text) > widths[index]:
                lines.append([cell])
                cell = Cell("")
            line += [_cut(cell, widths[index]), Cell(GAP)]
        lines.append(_without_end(line))
    return lines


def _least(
    columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], width: int
) -> int:
    """Return how narrow the table can be without losing a column."""
    floors = [_floor(columns[index], widths[index], width) for index in shown]
    return sum(floors) + len(GAP) * (len(shown) - 1)


def _floor(column: Column, natural: int, width: int) -> int:
    least = width * KEY // 100 if column.key else column.least
    return natural if least is None else min(least, natural)


def _give_way(
    columns: Sequence[Column],
    table: Sequence[Sequence[Cell]],
    widths: list[int],
    shown: Sequence[int],
    width: int,
) -> None:
    room = width - len(GAP) * (len(shown) - 1)
    if sum(widths[index] for index in shown) <= room:
        return
    for index in shown:
        if columns[index].key:
            lengths = [cell_len(row[index].text) for row in table]
            most = max(width * KEY // 100, lengths[0])
            widths[index] = max(length for length in lengths if length <= most)
    while sum(widths[index] for index in shown) > room:
        elastic = [
            index
            for index in shown
            if not columns[index].key
            and widths[index] > _floor(columns[index], widths[index], width)
        ]
        if not elastic:
            return
        widths[max(elastic, key=lambda index: widths[index])] -= 1


def _cut(cell: Cell, width: int) -> Cell:
    text = cell.text
    if cell_len(text) > width:
        text = set_cell_size(text, max(width - 1, 0)) + CUT
    return Cell(set_cell_size(text, width), cell.colour, cell.bold)


def _without_end(line: list[Cell]) -> list[Cell]:
    """Leave out spaces at the end of a line."""
    while line and not line[-1].text.strip():
        line.pop()
    if line:
        last = line[-1]
        line[-1] = Cell(last.text.rstrip(), last.colour, last.bold)
    return line


def _cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)
