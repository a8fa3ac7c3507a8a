"""What the two halves of the policy share: the checkpoint, checked against the robot, and its first slow passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from lam_ros.contract import Features
from lam_ros.errors import ConfigError
from lam_ros.nodes.base import LamNode, resolve
from lam_ros.policy.checkpoint import digest, load_policy

WARM_UP_TICKS = 5


class PolicyNode(LamNode):
    """A node that runs one half of a checkpoint's policy."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.declare(
            "checkpoint", "", "The policy's .safetensors file, the same for perception and action.", read_only=True
        )

    def load_policy(self) -> None:
        """Load the checkpoint and make its first passes, which are many times slower, before anyone waits for them.

        Raises:
            ConfigError, CheckpointError, ContractError: there is none, it cannot be read, or it is another robot's.
        """
        if not self.parameter("checkpoint"):
            raise ConfigError("the parameter checkpoint is empty; give the .safetensors file that `lam train` wrote.")
        path = resolve(self.parameter("checkpoint"))
        self._policy = load_policy(path, self.robot)
        self._digest = digest(path)
        frames = {
            name: np.zeros((camera.height, camera.width, 3), dtype=np.uint8)
            for name, camera in self.robot.cameras.items()
        }
        features = Features(0, np.zeros(0))
        for _ in range(WARM_UP_TICKS):
            features = self._policy.perceive(frames, 0)
            self._policy.act_on(features, np.zeros(len(self.contract.joints), dtype=np.float32))
        self._policy.reset()
