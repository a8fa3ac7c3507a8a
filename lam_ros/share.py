"""Find the package's own data: config/, description/, launch/, in a checkout, a pip or a colcon installation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lam_ros.errors import ConfigError


def _share_folders() -> Iterator[Path]:
    package = Path(__file__).resolve().parent
    if (package.parent / "package.xml").is_file():  # a checkout, an editable or a symlink installation
        yield package.parent
    for parent in package.parents:  # <prefix>/lib/python3.x/site-packages/lam_ros -> <prefix>/share/lam_ros
        yield parent / "share" / "lam_ros"
    yield Path(sys.prefix) / "share" / "lam_ros"
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / "lam_ros"


def share_path(relative: str) -> Path:
    """Path of a file that lam_ros installs, such as ``config/desk_arm.yaml``.

    Raises:
        ConfigError: it is in none of the installed places.
    """
    for folder in _share_folders():
        candidate = folder / relative
        if candidate.exists():
            return candidate
    raise ConfigError(f"lam_ros' own file {relative} is not installed; install the package again with pip or colcon.")
