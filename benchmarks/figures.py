"""How a benchmark tells what it found: a table, JSON, and a file where one is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def tell(table: Table, figures: Mapping[str, Any], file: Path | None) -> None:
    """Print both, and write the figures to the file."""
    Console(width=110).print(table)
    print(json.dumps(figures))
    if file:
        file.write_text(json.dumps(figures, indent=1))
