"""The stateful policy: reset(), then one act() a tick. Perception and action can also run apart, as the nodes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lam_ros.contract import NANOSECONDS, Action, Contract, Features, Observation
from lam_ros.errors import ContractError
from lam_ros.images import scale_image
from lam_ros.policy.decoding import ActionDecoder
from lam_ros.policy.runtime import Runtime


class Policy:
    """Observation in, action out, one tick at a time.

    Args:
        runtime: what runs the networks.
        position_limits: lower and upper (J,), in rad or m.
    """

    def __init__(self, runtime: Runtime, position_limits: tuple[np.ndarray, np.ndarray]) -> None:
        self.contract: Contract = runtime.contract
        self.runtime = runtime
        self._decoder = ActionDecoder(*position_limits, runtime.config.ensemble_decay, runtime.config.smoothing)
        self.reset()

    def reset(self) -> None:
        """Forget the episode: at its start, at activation, and when a human takes over."""
        self._hidden: Any = None
        self._planned_ns: float | None = None  # of the tick that the newest plan begins with
        self._decoder.reset()

    def replan(self) -> None:
        """Forget what was planned, not what was seen: at a hand-back, since the plans' first moves were never made."""
        self._decoder.reset()

    def perceive(self, images: Mapping[str, np.ndarray], stamp_ns: int) -> Features:
        """Features of one image a camera, each uint8 (H, W, 3) RGB of the contract's size.

        Raises:
            ContractError: an image is missing or of another size.
        """
        for camera in self.contract.cameras:
            if camera not in images:
                raise ContractError(f"no image of camera {camera}; there are {', '.join(images) or 'none'}.")
        rows = [self.perceive_camera(camera, images[camera]) for camera in self.contract.cameras]
        return Features(stamp_ns, np.stack(rows))

    def perceive_camera(self, camera: str, image: np.ndarray) -> np.ndarray:
        """Features float32 (D,) of one camera: a tick's work can begin with its first frame.

        Args:
            image: uint8 (H, W, 3) RGB of the contract's size.

        Raises:
            ContractError: the image has another size.
        """
        self.contract.validate_image(camera, image)
        index = self.contract.cameras.index(camera)
        return self.runtime.perceive(index, scale_image(image, self.runtime.config.image_size))

    def act_on(self, features: Features, state: np.ndarray) -> Action:
        """Advance the LSTM by one tick, from features and the measured state float32 (J,) in rad or m.

        Raises:
            ContractError: shapes or values that do not fit; the LSTM's state is then unchanged.
        """
        self.contract.validate_state(state)
        expected = (len(self.contract.cameras), self.runtime.features)
        if features.values.shape != expected:
            raise ContractError(
                f"features have shape {features.values.shape}; the action module was trained with {expected}. "
                "Give both nodes the same checkpoint."
            )
        if not np.isfinite(features.values).all():
            raise ContractError("features are not finite; they are refused. Check the cameras and the checkpoint.")
        chunk, hidden = self.runtime.step(features.values.reshape(-1), state, self._hidden)
        self.contract.validate_action(chunk.sum(0))  # finite only where every target of the chunk is
        self._hidden = hidden
        return Action(features.stamp_ns, self._decoder.decode(chunk, self._ticks_until(features.stamp_ns)))

    def _ticks_until(self, stamp_ns: int) -> int:
        """How far on in the plans this tick is: more than one where ticks were lost; one where two share a frame, by
        whose stamp the second is early."""
        period_ns = NANOSECONDS / self.contract.rate_hz
        planned_ns = stamp_ns - period_ns if self._planned_ns is None else self._planned_ns
        ticks = max(1, round((stamp_ns - planned_ns) / period_ns))
        self._planned_ns = min(max(planned_ns + ticks * period_ns, stamp_ns), stamp_ns + period_ns)
        return ticks

    def act(self, observation: Observation) -> Action:
        """One tick of perception and action together.

        Raises:
            ContractError: an observation that does not fit the contract.
        """
        return self.act_on(self.perceive(observation.images, observation.stamp_ns), observation.state)

    def attention(self, camera: str, image: np.ndarray) -> np.ndarray:
        """Where the CNN looks in an image uint8 (H, W, 3): float32 (h, w) at the policy's image size, 0 to 1."""
        index = self.contract.cameras.index(camera)
        return self.runtime.attention(index, scale_image(image, self.runtime.config.image_size))
