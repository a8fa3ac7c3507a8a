"""Policies compared on a real robot: whose turn it is, what came of it, and what that says.

Trials go by blocks: in each, every policy has one turn, in an order nobody knows beforehand, on a scene set up alike.
So what drifts (light, wear, the operator) falls on all of them, and outcomes can be compared in pairs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lam_ros.errors import TrainingError
from lam_ros.learning.evaluation import Difference, EpisodeResult, Evaluation, paired_difference

Ending = Literal["success", "failure", "takeover", "time"]


@dataclass(frozen=True)
class Turn:
    """One trial.

    Attributes:
        number: of the trial, from 0.
        policy: digest of the checkpoint.
        ending: how it ended; only a success is one. Help by hand is none.
        seconds: how long it took.
        episode: the recording's name.
    """

    number: int
    policy: str
    ending: Ending
    seconds: float
    episode: str


def order(policies: int, trials: int, seed: int) -> list[int]:
    """Whose turn it is: ``trials`` blocks, each with every policy once, shuffled."""
    rng = np.random.default_rng(seed)
    return [int(i) for _ in range(trials) for i in rng.permutation(policies)]


class Ledger:
    """The trials so far, a line of JSON each, on disk before the next begins: an interrupted comparison goes on.

    Args:
        file: made where it is not there.
        policies: digests of the checkpoints that are compared.
        seed: of the order.

    Raises:
        TrainingError: the file is another comparison's, or cannot be read.
    """

    def __init__(self, file: Path, policies: Sequence[str], seed: int) -> None:
        self._file, self._policies, self._seed = file, list(policies), seed
        self.turns: list[Turn] = []
        head = {"policies": self._policies, "seed": seed}
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._append(head)
            return
        try:
            text = file.read_text()
            whole, _, torn = text.rpartition("\n")
            if torn:  # a power cut, a full disk: that trial is done again
                with file.open("r+") as opened:
                    opened.truncate(len(text.encode()) - len(torn.encode()))
            if not whole:
                self._append(head)
                return
            first, *rest = (json.loads(line) for line in whole.splitlines())
            self.turns = [Turn(**line) for line in rest]
        except (ValueError, TypeError, OSError) as error:
            raise TrainingError(f"{file} is no record of trials: {error}. Give another --out.") from None
        if first != head:
            raise TrainingError(f"{file} compares other checkpoints, or in another order; give another --out.")

    def _append(self, line: dict[str, object]) -> None:
        with self._file.open("a") as opened:
            opened.write(json.dumps(line) + "\n")
            opened.flush()
            os.fsync(opened.fileno())

    def add(self, turn: Turn) -> None:
        """Write a trial down."""
        self._append(asdict(turn))
        self.turns.append(turn)

    def of(self, policy: str) -> list[Turn]:
        return [turn for turn in self.turns if turn.policy == policy]

    def evaluation(self, policy: str) -> Evaluation:
        """A policy's trials; what has the same ``seed`` was on the same scene."""
        count = len(self._policies)
        return Evaluation(
            tuple(EpisodeResult(t.number // count, t.ending == "success", t.seconds) for t in self.of(policy))
        )

    def difference(self, first: str, second: str) -> Difference | None:
        """Success of one policy less another's, by the scenes that both have had; None where there is none."""
        try:
            return paired_difference(self.evaluation(first), self.evaluation(second))
        except ValueError:
            return None
