"""Demonstrations that lie elsewhere: S3, Google Cloud Storage, a web server, whatever fsspec opens.

Episodes are copied once to a local folder and checked against the hashes of their manifests; training reads the copies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lam_ros.demonstrations.dataset import digest_of
from lam_ros.demonstrations.episode import MANIFEST, is_sealed_name, open_episode
from lam_ros.errors import ConfigError, EpisodeError, LamError


def cache_folder() -> Path:
    """Where copies are kept: ``$XDG_CACHE_HOME/lam_ros`` or ``~/.cache/lam_ros``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lam_ros"


def is_remote(folder: str) -> bool:
    return "://" in folder


def local_copy(url: str, report: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """A local folder that holds the sealed episodes of a remote one; what is there already is not fetched again.

    Args:
        url: such as ``s3://bucket/demos`` or ``gs://bucket/demos``.
        report: told of each episode, and how many there are.

    Raises:
        ConfigError: fsspec, or its part for this kind of address, is not installed.
        EpisodeError: nothing can be read there, or an episode is not what its manifest says.
    """
    try:
        import fsspec
    except ImportError:
        raise ConfigError(f"reading {url} needs fsspec: pip install 'lam_ros[cloud]'.") from None
    folder = cache_folder() / digest_of([url.rstrip("/")])
    try:
        there, root = fsspec.url_to_fs(url)
        found = (Path(path).parent.name for path in there.glob(f"{root.rstrip('/')}/episode_*/{MANIFEST}"))
        names = sorted(name for name in found if is_sealed_name(name))
    except ImportError as error:
        raise ConfigError(f"reading {url} needs another package ({error}): pip install 'lam_ros[cloud]'.") from None
    except Exception as error:  # each kind of storage has its own errors
        raise EpisodeError(f"{url} cannot be read: {error!r}. Check the address and your credentials.") from None
    if not names:
        raise EpisodeError(f"{url} holds no sealed episodes; check the address.")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for done, name in enumerate(names, 1):
            _fetch(there, f"{root.rstrip('/')}/{name}", folder / name)
            report(done, len(names))
        for gone in {entry.name for entry in folder.glob("episode_*")} - set(names):
            shutil.rmtree(folder / gone)  # a copy of what is no longer there
    return folder


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of processes that train together one fetches; the others wait, and find it there."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a folder that may only be read, or a file system without locks
            lock = held.enter_context((folder / ".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(there: Any, remote: str, local: Path) -> None:
    """Copy one episode unless the same is here; it is there whole and verified, or not at all."""
    fetching = local.parent / ".fetching" / local.name
    shutil.rmtree(fetching.parent, ignore_errors=True)
    try:
        if local.is_dir() and (local / MANIFEST).read_bytes() == there.cat_file(f"{remote}/{MANIFEST}"):
            return
        fetching.mkdir(parents=True)
        # Name by name, and no names but the manifest's last parts: a bucket may hold keys that lead out of the folder.
        there.get_file(f"{remote}/{MANIFEST}", str(fetching / MANIFEST))
        episode = open_episode(fetching)
        for name in episode.manifest.sha256:
            there.get_file(f"{remote}/{Path(name).name}", str(fetching / Path(name).name))
        episode.verify()
        shutil.rmtree(local, ignore_errors=True)  # an older version
        fetching.rename(local)
    except LamError as error:
        raise EpisodeError(f"{remote}: what was fetched is not what was sealed. {error}") from None
    except Exception as error:  # each kind of storage has its own errors
        raise EpisodeError(f"{remote} cannot be fetched: {error!r}. Run the same command again.") from None
    finally:
        shutil.rmtree(fetching.parent, ignore_errors=True)
