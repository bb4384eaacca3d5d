"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

from typing import Any

import typer


def print_json(value: Any) -> None:
    """Any msgspec value as JSON for people to read."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: list[str], rows: list[list[str]], header: bool = True) -> None:
    """Rows of text; columns of figures to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD if header else None, show_header=header, pad_edge=False)
    for place, column in enumerate(columns):
        figures = header and bool(rows) and all(row[place][:1] in "0123456789–+-" for row in rows)
        # What a row is about is to be copied into the next command: it stands in one piece.
        whole = max((len(row[0]) for row in rows), default=0) if place == 0 else None
        table.add_column(column, justify="right" if figures else "left", overflow="fold", min_width=whole)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
