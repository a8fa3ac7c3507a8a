"""A folder of episodes as one self-contained HTML page."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from lam_ros.cli.report import STYLE, embedded, embedded_figure
from lam_ros.config import RobotConfig
from lam_ros.demonstrations.episode import Episode
from lam_ros.demonstrations.signals import Signals, compare
from lam_ros.demonstrations.topics import RecordedTopics
from lam_ros.errors import ImageError
from lam_ros.images import read_frame

THUMBNAILS, THUMBNAIL_WIDTH = 4, 160
GRADE_COLOURS = {"PASS": "#2e7d32", "WARN": "#b07d00", "FAIL": "#b03030"}


def thumbnails(episode: Episode, robot: RobotConfig) -> dict[str, list[np.ndarray]]:
    """Camera -> THUMBNAILS frames, uint8 (H, W, 3), evenly over the take; cameras that cannot be read are left out."""
    topics = RecordedTopics.of(episode, robot).cameras
    wanted: dict[str, set[int]] = {}
    for topic, report in episode.manifest.topics.items():
        wanted[topic] = set(np.linspace(0, max(0, report.count - 1), THUMBNAILS).astype(int).tolist())
    seen: dict[str, int] = {}
    frames: dict[str, list[np.ndarray]] = {}
    for topic, msgtype, data, _ in episode.messages():
        camera = topics.get(topic.lstrip("/"))
        if camera is None:
            continue
        number = seen[topic] = seen.get(topic, -1) + 1
        if number in wanted.get(topic, ()):
            try:
                frames.setdefault(camera, []).append(read_frame(msgtype, data)[1])
            except ImageError:
                continue
    return frames


def _thumbnail(frame: np.ndarray) -> str:
    picture = Image.fromarray(frame)
    height = max(1, round(picture.height * THUMBNAIL_WIDTH / picture.width))
    buffer = io.BytesIO()
    picture.resize((THUMBNAIL_WIDTH, height)).save(buffer, format="webp", quality=70)
    return f'<img src="{embedded(buffer.getvalue(), "webp")}" width="{THUMBNAIL_WIDTH}" alt="frame">'


def _joints_plot(signals: Signals, robot: RobotConfig) -> str:
    columns = 4
    rows = -(-len(robot.joints) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 1.9 * rows), squeeze=False, sharex=True)
    for index, (axis, (name, joint)) in enumerate(zip(axes.flat, robot.joints.items(), strict=False)):
        axis.plot(signals.state_s, signals.state[:, index], linewidth=1.1, label="measured")
        axis.plot(signals.command_s, signals.command[:, index], linewidth=0.8, label="commanded")
        axis.set_title(f"{name}, {joint.unit}", fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(robot.joints) :]:
        axis.axis("off")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    return f'<img src="{embedded_figure(figure)}" alt="joints over time">'


def write_gallery(
    path: Path,
    episodes: Iterable[Episode],
    signals: Mapping[str, Signals],
    robot: RobotConfig,
) -> None:
    """Write the page: a table of all episodes, then thumbnails, joints over time and oddities of each."""
    odd = compare(signals, robot)
    rows, sections = [], []
    for episode in episodes:
        manifest = episode.manifest
        said = [*manifest.verdict.findings, *odd.get(manifest.name, [])]
        grade = f'<b style="color:{GRADE_COLOURS[manifest.verdict.grade]}">{manifest.verdict.grade}</b>'
        seconds = f"{signals[manifest.name].duration_s:.1f}" if manifest.name in signals else ""
        texts = (manifest.task, manifest.outcome, ", ".join(manifest.tags), " ".join(said))
        cells = "".join(f"<td>{html.escape(text)}</td>" for text in texts)
        rows.append(
            f'<tr><td><a href="#{manifest.name}">{manifest.name}</a></td><td>{grade}</td><td>{seconds}</td>{cells}</tr>'
        )
        films = "".join(
            f"<p>{html.escape(camera)}<br>{''.join(map(_thumbnail, frames))}</p>"
            for camera, frames in thumbnails(episode, robot).items()
        )
        plot = _joints_plot(signals[manifest.name], robot) if manifest.name in signals else ""
        findings = "".join(f"<li>{html.escape(text)}</li>" for text in said)
        sections.append(f'<h2 id="{manifest.name}">{manifest.name} {grade}</h2><ul>{findings}</ul>{films}{plot}')
    title = html.escape(str(path.parent.name or "episodes"))
    header = (
        "<tr><th>episode</th><th>verdict</th><th>s</th><th>task</th><th>outcome</th><th>tags</th><th>findings</th></tr>"
    )
    path.write_text(
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}: {len(rows)} episodes</h1><table>{header}{''.join(rows)}</table>{''.join(sections)}",
        encoding="utf-8",
    )
