"""Does a policy answer to what it is shown? Asked without any demonstration."""

from __future__ import annotations

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.policy.runtime import Runtime

TRIALS, CONSTANT = 8, 1e-3  # of an answer, as a share of the joint's range: the same whatever is shown


def unanswering_joints(runtime: Runtime, robot: RobotConfig) -> list[str]:
    """The joints for which a policy says the same whatever it is shown: random pictures, states within the limits."""
    rng = np.random.default_rng(0)
    width, height = runtime.config.image_size
    states = rng.uniform(*robot.position_limits, (TRIALS, len(robot.joints))).astype(np.float32)
    said = []
    for state in states:
        pictures = rng.integers(0, 256, (len(robot.cameras), height, width, 3), dtype=np.uint8)
        features = np.concatenate([runtime.perceive(i, picture) for i, picture in enumerate(pictures)])
        target = runtime.step(features, state, None)[0][0]
        said.append(target - state if runtime.config.targets == "relative" else target)
    lower, upper = robot.position_limits
    is_same = np.ptp(said, axis=0) < CONSTANT * (upper - lower)
    return [name for name, same in zip(robot.joint_names, is_same, strict=True) if same]
