"""Files and folders for other tools: written beside, and given their name when they are whole."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from lam_ros.errors import EpisodeError


@contextlib.contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``out`` when the context ends well; else nothing is left.

    Raises:
        EpisodeError: ``out`` exists already, or the disk does not take what is written.
    """
    if out.exists():
        raise EpisodeError(f"{out} exists already; give a path that does not, or move it away.")
    making = out.with_name(f"{out.name}.partial")
    _remove(making)
    try:
        yield making
        making.rename(out)
    except OSError as error:
        raise EpisodeError(f"{out} cannot be written: {error}. Free some space and export again.") from None
    finally:
        _remove(making)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
