"""Why "the loss is low but the robot does nothing": a policy, run over demonstrations with its memory handed on.

Nearly all ticks of a demonstration hardly move, so that a policy which predicts "stay" has a low loss. What tells are
the ticks that do move, and what changes when the pictures are those of another episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.errors import TrainingError
from lam_ros.policy.runtime import Runtime

MOVING_SHARE = 0.25  # of the largest tenth of demonstrated motions: above it, a tick moves
TIMID, WAVERING = 0.4, 0.5  # predicted over demonstrated motion; mean cosine between both
BLIND = 0.1  # change of the prediction with other pictures, over demonstrated motion


@dataclass(frozen=True)
class Finding:
    """One question, its figure, whether that is fine, and a sentence with the cure."""

    question: str
    figure: float
    is_fine: bool
    sentence: str


def predictions(runtime: Runtime, demonstration: Demonstration, images: np.ndarray) -> np.ndarray:
    """The first target of each tick's chunk, (T, J), for a demonstration's states and images (T, C, h, w, 3).

    Its memory begins anew where a human takes over, as the action node's does.
    """
    hidden, targets = None, []
    takeovers = set(demonstration.takeovers.tolist())
    for tick, (pictures, state) in enumerate(zip(images, demonstration.state, strict=True)):
        hidden = None if tick in takeovers else hidden
        features = np.concatenate([runtime.perceive(i, picture) for i, picture in enumerate(pictures)])
        chunk, hidden = runtime.step(features, np.asarray(state), hidden)
        targets.append(chunk[0])
    return np.array(targets)


def diagnose(runtime: Runtime, demonstrations: Sequence[Demonstration]) -> list[Finding]:
    """Look for what makes a policy with a low loss useless.

    Args:
        demonstrations: at least two; best such as it was not trained on.

    Raises:
        TrainingError: there are too few, or nothing moves in them.
    """
    if len(demonstrations) < 2:
        raise TrainingError(f"there are {len(demonstrations)} demonstrations; two are needed, to swap their pictures.")
    wanted, said, blind = [], [], []
    for demonstration, other in zip(demonstrations, (*demonstrations[1:], demonstrations[0]), strict=True):
        images = np.asarray(demonstration.images)
        # The other's pictures at the same share of its length, so that both are equally far in the task.
        swapped = np.asarray(other.images)[np.linspace(0, len(other) - 1, len(demonstration)).round().astype(int)]
        wanted.append(demonstration.action - demonstration.state)
        said.append(predictions(runtime, demonstration, images) - demonstration.state)
        blind.append(predictions(runtime, demonstration, swapped) - demonstration.state)
    target, answer, elsewhere = (np.concatenate(parts) for parts in (wanted, said, blind))
    scale = target.std(0)
    driven = scale > 1e-6
    if not driven.any():
        raise TrainingError("no joint is ever moved in these demonstrations; there is nothing to compare.")
    target, answer, elsewhere = (part[:, driven] / scale[driven] for part in (target, answer, elsewhere))
    size = np.linalg.norm(target, axis=1)
    moving = size > MOVING_SHARE * np.quantile(size, 0.9)
    t, a, e = target[moving], answer[moving], elsewhere[moving]
    motion = float(np.linalg.norm(a, axis=1).mean() / np.linalg.norm(t, axis=1).mean())
    cosine = float(np.mean((a * t).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(t, axis=1) + 1e-9)))
    sight = float(np.linalg.norm(a - e, axis=1).mean() / np.linalg.norm(t, axis=1).mean())
    names = [joint for joint, is_driven in zip(runtime.contract.joints, driven, strict=True) if is_driven]
    constant = [n for n, spread, usual in zip(names, answer.std(0), target.std(0), strict=True) if spread < 0.1 * usual]
    return [
        Finding(
            "does it move where the demonstrator moved?",
            motion,
            motion >= TIMID,
            f"its motion is {motion:.0%} of the demonstrated one"
            + ("." if motion >= TIMID else ": it stays where it is. Trim idle ends, train longer, or try a gmm head."),
        ),
        Finding(
            "does it move the same way?",
            cosine,
            cosine >= WAVERING,
            f"the mean cosine between both motions is {cosine:.2f}"
            + ("." if cosine >= WAVERING else ": it does not know where to go. Record more, or larger images."),
        ),
        Finding(
            "does it look?",
            sight,
            sight >= BLIND,
            f"pictures of another episode change its motion by {sight:.0%}"
            + (
                "."
                if sight >= BLIND
                else ": it goes by the joints alone. Raise state_noise and state_dropout, and check the cameras."
            ),
        ),
        Finding(
            "does every joint answer?",
            float(len(constant)),
            not constant,
            "every joint that the demonstrator moved answers."
            if not constant
            else f"nearly constant: {', '.join(constant)}. Check their units and limits in the robot YAML.",
        ),
    ]
