"""`lam episodes …`: look at recordings, mend them, and take them to other tools."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from lam_ros.cli.console import DEFAULT_ROBOT, Robot, console, friendly_errors, needs_interop, progress, track
from lam_ros.errors import EpisodeError, LamError

if TYPE_CHECKING:
    from lam_ros.demonstrations.episode import Episode
    from lam_ros.demonstrations.signals import Signals

episodes_app = typer.Typer(
    help="Look at recorded episodes, mend them, and take them to other tools.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(help="Folder of episodes.")]
One = Annotated[Path, typer.Argument(help="One episode: its folder, such as demos/episode_000012.")]
COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


def _grade(grade: str) -> str:
    return f"[{COLOURS[grade]}]{grade}[/]"


@episodes_app.command("list")
def list_command(folder: Folder) -> None:
    """A table of the sealed episodes: task, outcome, verdict, messages."""
    from lam_ros.demonstrations.episode import list_episodes

    with friendly_errors():
        table = Table("episode", "task", "outcome", "verdict", "messages", "tags", "findings")
        for episode in list_episodes(folder):
            manifest = episode.manifest
            table.add_row(
                manifest.name,
                escape(manifest.task),
                manifest.outcome,
                _grade(manifest.verdict.grade),
                str(sum(topic.count for topic in manifest.topics.values())),
                escape(", ".join(manifest.tags)),
                escape(" ".join(manifest.verdict.findings[:2])),
            )
        console.print(table)
        for kind, cure in (
            ("partial", "lam episodes repair"),
            ("set_aside", "reason.txt"),
            ("replaced", "lam episodes clean"),
        ):
            count = len(list(folder.glob(f"episode_*.{kind}")))
            if count:
                console.print(f"[dim]{count} more {kind.replace('_', ' ')}: see `{cure}`[/]")


@episodes_app.command("show")
def show_command(episode: One) -> None:
    """Everything the manifest says of one episode, topic by topic."""
    from lam_ros.demonstrations.episode import open_episode

    with friendly_errors():
        manifest = open_episode(episode).manifest
        facts = {
            "task": manifest.task,
            "outcome": manifest.outcome,
            "robot": f"{manifest.robot} ({manifest.robot_digest})",
            "who drove": ", ".join(f"{name or 'unnamed'} {count}" for name, count in manifest.drivers.items()),
            "tags": ", ".join(manifest.tags),
            "made of": manifest.origin,
            "anonymised": manifest.anonymised,
        }
        console.print(f"[bold]{manifest.name}[/] {_grade(manifest.verdict.grade)}")
        for name, text in facts.items():
            if text:
                console.print(f"  {name}: {escape(text)}")
        for finding in manifest.verdict.findings:
            console.print(f"  [yellow]{escape(finding)}[/]")
        table = Table("topic", "messages", "rate", "largest gap", "lost", "missing", "age", "skew")
        for name, topic in manifest.topics.items():
            expected = f" of {topic.expected_hz:g}" if topic.expected_hz else ""
            table.add_row(
                escape(name),
                str(topic.count),
                f"{topic.rate_hz:.1f}{expected} Hz",
                f"{topic.largest_gap_s * 1e3:.0f} ms",
                str(topic.lost),
                str(topic.missing),
                "" if topic.age_s is None else f"{topic.age_s * 1e3:.1f} ms",
                "" if topic.skew_s is None else f"{topic.skew_s * 1e3:.1f} ms",
            )
        console.print(table)


def _read_all(episodes: Sequence[Episode], robot: str) -> dict[str, Signals]:
    from lam_ros.config import load_robot
    from lam_ros.demonstrations.signals import read_signals

    described = load_robot(robot)
    read: dict[str, Signals] = {}
    for episode in track(episodes, "reading joints"):
        try:
            read[episode.manifest.name] = read_signals(episode, described)
        except LamError as error:
            console.print(f"[yellow]{escape(str(error))}[/]")
    if not read:
        raise EpisodeError("no episode can be read; record some, or check the robot YAML.")
    return read


@episodes_app.command("stats")
def stats_command(folder: Folder, robot: Robot = DEFAULT_ROBOT) -> None:
    """Lengths, joint ranges, and what is odd: idle time, still joints, jumping commands, takes that are there twice."""
    import numpy as np

    from lam_ros.config import load_robot
    from lam_ros.demonstrations.episode import list_episodes
    from lam_ros.demonstrations.signals import compare

    with friendly_errors():
        described, episodes = load_robot(robot), list_episodes(folder)
        signals = _read_all(episodes, robot)
        lengths = np.array([one.duration_s for one in signals.values()])
        outcomes = [episode.manifest.outcome for episode in episodes]
        grades = [episode.manifest.verdict.grade for episode in episodes]
        console.print(
            f"{len(episodes)} episodes, {lengths.sum() / 60:.1f} min; a take has {np.median(lengths):.1f} s "
            f"({lengths.min():.1f} to {lengths.max():.1f})"
        )
        console.print(", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes))))
        console.print(", ".join(f"{grades.count(grade)} {_grade(grade)}" for grade in ("PASS", "WARN", "FAIL")))
        table = Table("joint", "least", "mean", "most", "spread", "limits")
        states = np.concatenate([one.state for one in signals.values()])
        for index, (name, joint) in enumerate(described.joints.items()):
            column = states[:, index]
            figures = [f"{value:.3f}" for value in (column.min(), column.mean(), column.max(), column.std())]
            table.add_row(name, *figures, f"{joint.position[0]:g} to {joint.position[1]:g} {joint.unit}")
        console.print(table)
        odd = compare(signals, described)
        for episode in episodes:
            manifest = episode.manifest
            said = [*odd.get(manifest.name, [])]
            if manifest.outcome == "failure" or manifest.verdict.grade == "FAIL":
                said.insert(0, f"{manifest.outcome}, {manifest.verdict.grade}: training leaves it out.")
            for sentence in said:
                console.print(f"[yellow]{manifest.name}[/] {escape(sentence)}")


@episodes_app.command("plot")
def plot_command(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="The page; by default FOLDER/episodes.html.")] = None,
    robot: Robot = DEFAULT_ROBOT,
    rerun: Annotated[
        Path | None, typer.Option(help="Write a Rerun recording (.rrd) too; needs the extra `view`.")
    ] = None,
) -> None:
    """One self-contained HTML page: a table, thumbnails of each camera, joints over time."""
    from lam_ros.cli.gallery import write_gallery
    from lam_ros.config import load_robot
    from lam_ros.demonstrations.episode import list_episodes

    with friendly_errors():
        episodes, described = list_episodes(folder), load_robot(robot)
        signals = _read_all(episodes, robot)
        page = out or folder / "episodes.html"
        write_gallery(page, track(episodes, "drawing"), signals, described)
        console.print(f"{page}")
        if rerun is not None:
            from lam_ros.cli.rerun_file import write_rerun

            write_rerun(rerun, track(episodes, "writing for Rerun"), described)
            console.print(f"{rerun}: open it with `rerun {rerun}`")


@episodes_app.command("trim")
def trim_command(
    path: Annotated[Path, typer.Argument(help="Folder of episodes, or one episode.")],
    start: Annotated[float | None, typer.Option(help="One episode: keep from here (s).")] = None,
    end: Annotated[float | None, typer.Option(help="One episode: keep to here (s).")] = None,
    margin: Annotated[float, typer.Option(min=0, help="Seconds to keep beside the motion.")] = 0.5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be cut, and cut nothing.")] = False,
    robot: Robot = DEFAULT_ROBOT,
) -> None:
    """Cut idle beginnings and ends off; whole episodes stay beside, as `….replaced`."""
    from lam_ros.config import load_robot
    from lam_ros.demonstrations.editing import Span, trim
    from lam_ros.demonstrations.episode import MANIFEST, list_episodes, open_episode
    from lam_ros.demonstrations.signals import motion

    with friendly_errors():
        is_one = (path / MANIFEST).is_file()
        episodes = [open_episode(path)] if is_one else list_episodes(path)
        if start is not None or end is not None:
            if not is_one:
                raise EpisodeError("--start and --end are for one episode; name its folder.")
            if not dry_run:
                console.print(f"{trim(episodes[0], Span(start or 0.0, end)).folder}")
            return
        signals = _read_all(episodes, robot)
        described = load_robot(robot)
        for episode in episodes:
            one = signals.get(episode.manifest.name)
            moves = motion(one, described) if one else None
            if one is None or moves is None:
                continue
            begins, ends = max(0.0, moves[0] - margin), min(one.duration_s, moves[1] + margin)
            idle = begins + one.duration_s - ends
            if idle < 2 * margin:
                continue
            told = f"{episode.manifest.name}: {idle:.1f} s idle, {begins:.1f} s to {ends:.1f} s stay"
            span = Span(begins + one.begins_s, ends + one.begins_s)
            console.print(told if dry_run else f"{told}: {trim(episode, span).manifest.name}")


@episodes_app.command("split")
def split_command(
    episode: One, at: Annotated[list[float], typer.Option(help="Where to cut, in s; may be given several times.")]
) -> None:
    """Cut one episode into several; the whole one stays beside, as `….replaced`."""
    from lam_ros.demonstrations.editing import split
    from lam_ros.demonstrations.episode import open_episode

    with friendly_errors():
        for part in split(open_episode(episode), at):
            console.print(f"{part.folder}")


@episodes_app.command("merge")
def merge_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of episodes.")],
    out: Annotated[Path, typer.Option(help="The folder that all are copied to, numbered anew.")],
) -> None:
    """Copy the episodes of several folders into one."""
    from lam_ros.demonstrations.editing import check_one_robot, copy
    from lam_ros.demonstrations.episode import list_episodes

    with friendly_errors():
        episodes = [episode for folder in folders for episode in list_episodes(folder)]
        check_one_robot(episodes)
        merged = [copy(episode, out) for episode in track(episodes, "copying")]
        console.print(f"{len(merged)} episodes are in {out}.")


@episodes_app.command("tag")
def tag_command(
    episodes: Annotated[list[Path], typer.Argument(help="Episodes: their folders.")],
    add: Annotated[list[str] | None, typer.Option(help="A tag to add; may be given several times.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A tag to take away.")] = None,
    outcome: Annotated[Literal["success", "failure", "unmarked"] | None, typer.Option(help="How it ended.")] = None,
) -> None:
    """Change tags and outcome of episodes."""
    from lam_ros.demonstrations.editing import tag
    from lam_ros.demonstrations.episode import open_episode

    with friendly_errors():
        for folder in episodes:
            manifest = tag(open_episode(folder), add or (), remove or (), outcome or "").manifest
            console.print(f"{manifest.name}: {manifest.outcome} {escape(', '.join(manifest.tags))}")


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise EpisodeError(f"--size is {text!r}; write it as 640x480.")
    return int(width), int(height)


@episodes_app.command("export")
def export_command(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="What to write: a folder (lerobot) or a file (robomimic).")],
    to: Annotated[Literal["lerobot", "robomimic"], typer.Option(help="LeRobot dataset v3.0, or robomimic HDF5.")],
    robot: Robot = DEFAULT_ROBOT,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the images; by default the first camera's.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Failures and FAIL verdicts too.")] = False,
    blur_faces: Annotated[bool, typer.Option("--anonymise", help="Blur faces; see `lam episodes anonymise`.")] = False,
) -> None:
    """Write the episodes, aligned at the policy's ticks, for another tool. Needs the extra `interop`.

    Episodes come to LeRobot with joints in rad and m, and to robomimic as absolute joint targets.
    """
    from lam_ros.config import load_robot
    from lam_ros.demonstrations.alignment import usable
    from lam_ros.demonstrations.episode import list_episodes

    with friendly_errors(), needs_interop():
        from lam_ros.demonstrations.interop.lerobot import export_lerobot
        from lam_ros.demonstrations.interop.robomimic import export_robomimic

        described, episodes = load_robot(robot), list_episodes(folder)
        chosen = episodes if everything else usable(episodes, described)
        write = export_lerobot if to == "lerobot" else export_robomimic
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as beside:
            if blur_faces:
                from lam_ros.demonstrations.anonymise import anonymise

                chosen = [anonymise(episode, Path(beside)) for episode in track(chosen, "blurring faces")]
            ticks = write(track(chosen, "exporting"), described, out, size=_size(size))
        console.print(f"{out}: {len(chosen)} episodes, {ticks} ticks")


@episodes_app.command("anonymise")
def anonymise_command(
    folder: Folder, out: Annotated[Path, typer.Option(help="Folder that the anonymised copies go to.")]
) -> None:
    """Copy all episodes with every face in them blurred; the manifests say so. Needs the extra `anonymise`.

    No detector finds every face: look the copies through (`lam episodes plot`) before you pass them on. To export
    without faces, export the copies.
    """
    from lam_ros.demonstrations.anonymise import anonymise
    from lam_ros.demonstrations.episode import list_episodes

    with friendly_errors():
        for episode in track(list_episodes(folder), "blurring faces"):
            copied = anonymise(episode, out).manifest
            console.print(f"{copied.name}: {copied.anonymised}")


@episodes_app.command("import")
def import_command(
    sources: Annotated[list[Path], typer.Argument(help="rosbag2 folders, or one LeRobot dataset.")],
    out: Annotated[Path, typer.Option(help="Folder of episodes that they go to.")],
    source_format: Annotated[Literal["rosbag2", "lerobot"], typer.Option("--from", help="What the sources are.")],
    robot: Robot = DEFAULT_ROBOT,
    task: Annotated[str, typer.Option(help="rosbag2: what is shown, in words.")] = "",
    commands: Annotated[
        str, typer.Option(help="rosbag2: the topic that drove the arm; the joint states' where it was moved by hand.")
    ] = "teleop/command",
    lead: Annotated[float, typer.Option(help="rosbag2: commands count as given so many seconds earlier.")] = 0.0,
    degrees: Annotated[bool, typer.Option("--degrees", help="lerobot: joints that turn are in degrees, not rad.")] = (
        False
    ),
) -> None:
    """Make sealed episodes of recordings of other tools, with a robot YAML that names their topics or cameras.

    A bag may be MCAP or sqlite3, as `ros2 bag record` writes it; every topic in it is kept as it is.
    """
    from lam_ros.config import load_robot

    with friendly_errors(), needs_interop():
        from lam_ros.demonstrations.interop.lerobot import import_lerobot
        from lam_ros.demonstrations.interop.rosbag2 import import_bag

        described = load_robot(robot)
        made: list[Episode] = []
        if source_format == "rosbag2":
            for bag in track(sources, "importing"):
                made.append(import_bag(bag, out, described, task, commands, lead))
        else:
            with progress() as display:
                bar = display.add_task("importing", total=None, note="")

                def report(done: int, total: int) -> None:
                    display.update(bar, completed=done, total=total)

                for folder in sources:
                    made += import_lerobot(folder, out, described, report, degrees)
        console.print(f"{len(made)} episodes are in {out}; `lam episodes stats {out}` looks them through.")


@episodes_app.command("repair")
def repair_command(folder: Folder) -> None:
    """Seal again what can be read of recordings that a crash, or a full disk, ended before they were sealed."""
    from lam_ros.demonstrations.repair import leftovers, recover

    with friendly_errors():
        if not folder.is_dir():
            raise EpisodeError(f"{folder} is no folder of episodes; check the path.")
        found = [recover(leftover) for leftover in leftovers(folder, set_aside_too=True)]
        for leftover in found:
            console.print(f"{leftover.folder}: {leftover.sentence}")
        sealed = sum(leftover.is_sealed for leftover in found)
        console.print(f"{sealed} of {len(found)} leftovers are sealed again.")


@episodes_app.command("verify")
def verify_command(folder: Folder) -> None:
    """Check every file of every sealed episode against its hash."""
    from lam_ros.demonstrations.episode import list_episodes

    with friendly_errors():
        episodes = list_episodes(folder)
        for episode in track(episodes, "verifying"):
            episode.verify()
        console.print(f"{len(episodes)} episodes are as they were sealed.")


@episodes_app.command("clean")
def clean_command(folder: Folder, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete the takes that were replaced by newer ones, after asking."""
    with friendly_errors():
        replaced = sorted(folder.glob("episode_*.replaced"))
        size = sum(file.stat().st_size for take in replaced for file in take.iterdir())
        if not replaced:
            console.print("there are no replaced takes.")
            return
        if not yes:
            typer.confirm(f"Delete {len(replaced)} replaced takes, {size / 1e9:.2f} GB, for ever?", abort=True)
        for take in replaced:
            shutil.rmtree(take)
        console.print(f"{len(replaced)} replaced takes are deleted.")
