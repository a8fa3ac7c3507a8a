"""The demo's report: one self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

FILM_HEIGHT, FILM_FPS = 288, 20.0  # smaller pictures are made larger, by whole times
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem } table { border-collapse: collapse }
td, th { padding: .3rem .9rem; border-bottom: 1px solid #ddd; text-align: left } img { max-width: 100% }
.big { font-size: 2.2rem; font-weight: 600 } .note { color: #666 } code { background: #f3f3f3; padding: 0 .3rem }
"""


def embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def embedded_figure(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return embedded(buffer.getvalue(), "png")


def success_plot(evaluations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Success rates side by side, with their 95 % Wilson intervals."""
    figure, axes = plt.subplots(figsize=(7, 0.7 + 0.5 * len(evaluations)))
    for row, evaluation in enumerate(evaluations.values()):
        rate = evaluation["successes"] / max(1, evaluation["episodes"])
        low, high = evaluation["wilson_95"]
        axes.barh(row, rate, color="#4472a8", height=0.55)
        axes.errorbar(rate, row, xerr=[[max(0.0, rate - low)], [max(0.0, high - rate)]], color="#222", capsize=4)
    axes.set_yticks(range(len(evaluations)), evaluations)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("success rate, 95 % Wilson interval")
    return figure


def read_curves(log_folder: Path) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """stage -> figure -> (steps, values), from Lightning's metrics.csv files."""
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for stage in ("perception", "action", "together"):
        path = log_folder / stage / "metrics.csv"
        if not path.is_file():
            continue
        stage_curves = curves.setdefault(stage, {})
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        steps, values = stage_curves.setdefault(name, ([], []))
                        steps.append(float(row["step"]))
                        values.append(float(value))
    return curves


def learning_plot(curves: Mapping[str, Mapping[str, tuple[list[float], list[float]]]]) -> Figure:
    """Losses and accuracy of each stage over optimiser steps."""
    figure, axes = plt.subplots(1, max(1, len(curves)), figsize=(11, 3.4), squeeze=False)
    for axis, (stage, figures) in zip(axes[0], curves.items(), strict=False):
        for name, (steps, values) in figures.items():
            axis.plot(steps, values, label=name, linewidth=1.2)
        axis.set_title(f"stage: {stage}")
        axis.set_xlabel("optimiser step")
        if min((min(values) for _, values in figures.values()), default=0.0) >= 0.0:  # of gmm, likelihoods, are not
            axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return figure


def latency_plot(latencies_ms: Sequence[float]) -> Figure:
    """Histogram of the wall time from a frame's publication to its command."""
    figure, axis = plt.subplots(figsize=(7, 2.8))
    values = np.asarray(latencies_ms)
    axis.hist(values, bins=60, range=(0, float(np.percentile(values, 99.5)) * 1.1), color="#4472a8")
    for share in (50, 99):
        mark = float(np.percentile(values, share))
        axis.axvline(mark, color="#b03030", linestyle="--", linewidth=1)
        axis.text(mark, axis.get_ylim()[1] * 0.9, f" p{share} {mark:.1f} ms", color="#b03030", fontsize=9)
    axis.set_xlabel("frame published to command received, ms")
    axis.set_ylabel("ticks")
    return figure


def film(frames: Sequence[tuple[int, str, np.ndarray]], path: Path, fps: float = FILM_FPS) -> bool:
    """Write an animated WebP of rollouts, (episode, camera, uint8 (H, W, 3)), cameras side by side; False where there
    are no frames."""
    rollouts: dict[int, dict[str, list[np.ndarray]]] = {}
    for episode, camera, frame in frames:
        rollouts.setdefault(episode, {}).setdefault(camera, []).append(frame)
    pictures = []
    for cameras in rollouts.values():
        for together in zip(*cameras.values(), strict=False):
            height = max(frame.shape[0] for frame in together)
            padded = [np.pad(frame, ((0, height - frame.shape[0]), (0, 4), (0, 0))) for frame in together]
            picture = Image.fromarray(np.hstack(padded))
            times = max(1, FILM_HEIGHT // height)
            pictures.append(picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST))
    if not pictures:
        return False
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, quality=70, method=2
    )
    return True


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    latencies_ms: Sequence[float],
    log_folder: Path,
    film_path: Path | None,
) -> None:
    """Write the page.

    Args:
        summary: what summary.json holds.
        latencies_ms: of the trained policy's ticks.
        log_folder: training's logs.
        film_path: the film to embed.
    """
    trained = summary["evaluations"]["trained policy"]
    low, high = trained["wilson_95"]
    seconds = "".join(f"<tr><td>{html.escape(k)}</td><td>{v:.0f} s</td></tr>" for k, v in summary["seconds"].items())
    files = "".join(
        f"<tr><td>{html.escape(k)}</td><td><code>{html.escape(str(v))}</code></td></tr>"
        for k, v in summary["files"].items()
    )
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{e['successes']} of {e['episodes']}</td>"
        f"<td>{e['wilson_95'][0]:.2f} to {e['wilson_95'][1]:.2f}</td></tr>"
        for name, e in summary["evaluations"].items()
    )
    moving = f'<img src="{embedded(film_path.read_bytes(), "webp")}" alt="rollouts">' if film_path else "no film"
    curves = read_curves(log_folder)
    accuracy = curves.get("action", {}).get("val_accuracy", ([], [0.0]))[1][-1]
    learning = f'<img src="{embedded_figure(learning_plot(curves))}" alt="learning curves">' if curves else ""
    latency = f'<img src="{embedded_figure(latency_plot(latencies_ms))}" alt="latency">' if latencies_ms else ""
    path.write_text(
        f"""<!doctype html><meta charset="utf-8"><title>lam_ros: {html.escape(summary["task"])}</title>
<style>{STYLE}</style>
<h1>lam_ros learned to {html.escape(summary["instruction"])}</h1>
<p class="big">{trained["successes"]} of {trained["episodes"]}</p>
<p>unseen episodes succeeded (95 % interval {low:.2f} to {high:.2f}), after {summary["demonstrations"]} demonstrations.
Every frame, state and command went through the ROS 2 nodes.</p>
<img src="{embedded_figure(success_plot(summary["evaluations"]))}" alt="success rates">
<table><tr><th>who</th><th>succeeded</th><th>95 % interval</th></tr>{rows}</table>
<h2>The policy at work</h2>{moving}
<p class="note">Bright: where the CNN looks (its spatial softmax), from <code>lam/explain/&lt;camera&gt;</code>.</p>
<h2>Learning</h2>{learning}
<p class="note">Accuracy on held-out episodes: {accuracy:.2f} (joint targets in the right one of
{summary["bins"]} bins, as the articles count). A low loss alone does not mean that the arm does the task;
the success above is what counts.</p>
<h2>From frame to command</h2>{latency}
<h2>Time</h2><table>{seconds}</table>
<h2>Files</h2><table>{files}</table>
""",
        encoding="utf-8",
    )
