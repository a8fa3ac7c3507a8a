"""A disk that fills up, or a folder that turns read-only, in the middle of a take: nothing sealed is harmed.

    sudo python benchmarks/recorder_disk.py [--rounds 10] [--seed 0] [--json FILE]

The dataset lies on a small tmpfs (mounting one needs root). Three troubles, each at a random instant of a take with two
640x480 raw cameras at 30 Hz: the recording itself fills the disk (the governor must seal in time); another program
takes all that is left at once; the dataset's folders are made read-only (the recorder runs without root's right to
ignore that). Then the trouble is undone, and what is left is repaired.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from latency import write_robot
from recorder_kill import Client
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lam_ros.bringup import NODES, Process, node_environment
from lam_ros.cli.console import isolated_ros
from lam_ros.demonstrations.episode import list_episodes
from lam_ros.demonstrations.repair import leftovers, recover
from lam_ros.errors import LamError

DISK_MB, KEEP_FREE_GB = 1000, 0.1  # room for a sealed take and a leftover
LONGEST_S, AFTERWARDS_S = 4.0, 2.0
FILLS_AFTER_S = (13.0, 22.0)  # of 55 MB/s: killed before, while and after the recorder seals the take
TROUBLES = ("fills up by itself", "is filled by another", "is made read-only")


WITHOUT_ROOTS_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def allow_writing(dataset: Path, is_allowed: bool) -> None:
    for folder in (dataset, *dataset.iterdir()):
        folder.chmod(0o755 if is_allowed else 0o555)


def fill(disk: Path) -> None:
    """Take every byte that is left."""
    with (disk / "filler").open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        except OSError:
            return


def one_round(trouble: str, client: Client, disk: Path, rng: np.random.Generator) -> int:
    """Record into trouble; when it began (ns of the wall clock)."""
    client.start()
    if trouble == TROUBLES[0]:
        time.sleep(rng.uniform(*FILLS_AFTER_S))
        return time.time_ns()
    time.sleep(rng.uniform(0.5, LONGEST_S))
    began_ns = time.time_ns()
    if trouble == TROUBLES[1]:
        fill(disk)
    else:
        allow_writing(disk / "demos", False)
    time.sleep(AFTERWARDS_S)
    client.stop()
    time.sleep(0.5)
    return began_ns


def campaign(rounds: int, seed: int, troubles: list[str], json_file: Path | None) -> int:
    """All rounds of all troubles; 0 where nothing sealed was harmed and every leftover could be read."""
    rng, console = np.random.default_rng(seed), Console()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Path(name) / "disk"
        disk.mkdir()
        robot_file = write_robot(folder)
        described = yaml.safe_load(robot_file.read_text())
        described["recorder"]["keep_free_gb"] = KEEP_FREE_GB
        robot_file.write_text(yaml.safe_dump(described, sort_keys=False))
        kill = Path(__file__).with_name("recorder_kill.py")
        robot = subprocess.Popen([sys.executable, str(kill), "--role", "robot", "--robot", str(robot_file)])
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)], check=True)
        parameters = {"robot": str(robot_file), "autostart": True, "dataset": str(disk / "demos"), "preflight": False}
        log = (folder / "recorder.log").open("wb")
        try:
            for trouble in troubles:
                harmed = unreadable = by_itself = 0
                lost_s: list[float] = []
                for _ in track(range(rounds), f"the disk {trouble}", console=console):
                    command = [*WITHOUT_ROOTS_RIGHTS, *Process(NODES["recorder"], parameters).arguments()]
                    recorder = subprocess.Popen(command, stdout=log, stderr=log)
                    client = Client()  # a new one: an old sender may still write to the port of the recorder before
                    try:
                        began_ns = one_round(trouble, client, disk, rng)
                    except TimeoutError:
                        console.print(f"recorder: {recorder.poll()}", (folder / "recorder.log").read_text()[-2000:])
                        raise
                    finally:
                        client.close()
                    recorder.send_signal(signal.SIGKILL)
                    recorder.wait()
                    allow_writing(disk / "demos", True)
                    (disk / "filler").unlink(missing_ok=True)
                    found = [recover(leftover) for leftover in leftovers(disk / "demos")]
                    by_itself += not found
                    unreadable += sum(not leftover.is_sealed for leftover in found)
                    episodes = list_episodes(disk / "demos")
                    for episode in episodes:
                        try:
                            episode.verify()
                        except LamError as error:
                            harmed += 1
                            console.print(str(error))
                    if found and episodes:
                        last_ns = max(received for _, _, _, received in episodes[-1].messages())
                        lost_s.append(max(0.0, (began_ns - last_ns) / 1e9))
                    for episode in episodes[:-1]:
                        shutil.rmtree(episode.folder)
                    if trouble == TROUBLES[0]:
                        shutil.rmtree(disk / "demos")
                figures[trouble] = {
                    "rounds": rounds,
                    "sealed episodes harmed": harmed,
                    "sealed by the recorder itself": by_itself,
                    "repaired": rounds - by_itself - unreadable,
                    "could not be read": unreadable,
                    "lost before the trouble, at most s": round(max(lost_s, default=0.0), 3),
                }
        finally:
            robot.kill()
            robot.wait()
            subprocess.run(["umount", str(disk)], check=False)
    table = Table("the disk", *next(iter(figures.values())), title="trouble with the disk")
    for trouble, row in figures.items():
        table.add_row(trouble, *map(str, row.values()))
    console.print(table)
    print(json.dumps(figures, indent=2))
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2))
    return int(any(row["sealed episodes harmed"] or row["could not be read"] for row in figures.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--troubles", nargs="+", choices=TROUBLES, default=list(TROUBLES), metavar="TROUBLE")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    with isolated_ros():
        os.environ.update(node_environment())
        raise SystemExit(campaign(arguments.rounds, arguments.seed, arguments.troubles, arguments.json))


if __name__ == "__main__":
    main()
