"""How a benchmark tells what it found: a table, JSON, and a file where one is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def by_name(figures: Mapping[str, Any]) -> Table:
    """A table with a row a figure."""
    table = Table("", "")
    for name, value in figures.items():
        table.add_row(name, str(value))
    return table


def tell(table: Table, figures: Mapping[str, Any], file: Path | None) -> None:
    """Print both, and write the figures to the file."""
    Console(width=110).print(table)
    print(json.dumps(figures))
    if file:
        file.write_text(json.dumps(figures, indent=1))
