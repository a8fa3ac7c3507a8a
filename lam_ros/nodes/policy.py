"""What the two halves of the policy share: the checkpoint, checked against the robot, and changed while they run.

A change goes through the parameter ``checkpoint``, action first, then perception (`lam swap` does both). Each node
loads and warms the new policy up beside the one that runs. Perception then sees with it, and stamps its features with
its digest; action answers each set of features with the policy of that digest. So no tick is missed, and none is
answered by half of one policy and half of another.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from lam_ros.config import RobotConfig
from lam_ros.contract import Features
from lam_ros.errors import CheckpointError, ConfigError, LamError
from lam_ros.nodes.base import ERROR, OK, WARN, LamNode, resolve
from lam_ros.policy.checkpoint import digest, load_policy, read_info
from lam_ros.policy.policy import Policy
from lam_ros.policy.probe import unanswering_joints

WARM_UP_TICKS = 5
ADOPT_PERIOD_S = 0.05  # how soon a policy that has been loaded is taken up


@dataclass(frozen=True)
class Loaded:
    """A policy, warmed up; the file it came from, and that file's digest; joints it has not learned."""

    policy: Policy
    file: str
    digest: str
    unlearned: tuple[str, ...] = ()


def load(file: str, robot: RobotConfig, provider: str, threads: int) -> Loaded:
    """Load a checkpoint and make its first passes, which are many times slower, before anyone waits for them.

    Raises:
        CheckpointError, ContractError: it cannot be read, or is another robot's.
    """
    path = resolve(file)
    began = digest(path)
    policy = load_policy(path, robot, provider, threads)
    frames = {
        name: np.zeros((camera.height, camera.width, 3), dtype=np.uint8) for name, camera in robot.cameras.items()
    }
    features = Features(0, np.zeros(0))
    for _ in range(WARM_UP_TICKS):
        features = policy.perceive(frames, 0)
        policy.act_on(features, np.zeros(len(robot.joints), dtype=np.float32))
    policy.reset()
    if digest(path) != began:  # else old weights might run under the name of new ones
        raise CheckpointError(f"{file} was written while it was read; give it again.")
    return Loaded(policy, file, began, tuple(unanswering_joints(policy.runtime, robot)))


class PolicyNode(LamNode):
    """A node that runs one half of a checkpoint's policy."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.declare(
            "checkpoint",
            "",
            "The policy's .safetensors file, a checkpoint or an exported policy; may be changed while the node runs.",
        )
        self.declare("provider", "CPU", "What computes: CPU, CUDA, or for exported policies TensorRT.", read_only=True)
        self.declare("threads", 1, "Threads of an exported policy's networks.", (1, 64), read_only=True)
        self._loading: threading.Thread | None = None
        self._came: Loaded | LamError | None = None  # from the thread that loads
        self._unloadable = ""  # why what was asked for last could not be loaded
        self._is_loaded = False
        self._is_telling = False
        self._is_unwanted = False
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(ADOPT_PERIOD_S, self._adopt_what_came, clock=self._steady)
        self.figure("checkpoint", lambda: self._digest if self._is_loaded else "")
        self.figure("is loading", lambda: self._loading is not None)
        self.figure("checkpoint refused", lambda: self._unloadable)

    def load_policy(self) -> None:
        """Load the checkpoint that the parameter names.

        Raises:
            ConfigError, CheckpointError, ContractError: there is none, it cannot be read, or it is another robot's.
        """
        if not self.parameter("checkpoint"):
            raise ConfigError("the parameter checkpoint is empty; give the .safetensors file that `lam train` wrote.")
        self.run_with(self._load(str(self.parameter("checkpoint"))))
        self._is_loaded = True

    def _load(self, file: str) -> Loaded:
        return load(file, self.robot, str(self.parameter("provider")), int(self.parameter("threads")))

    def run_with(self, loaded: Loaded) -> None:
        """Answer with this policy from the next tick on."""
        self._policy, self._digest, self._file = loaded.policy, loaded.digest, loaded.file
        said = f"runs {loaded.file} ({loaded.policy.runtime.name})"
        if loaded.unlearned:
            said += f", which answers the same for {', '.join(loaded.unlearned)} whatever it is shown; `lam inspect` it"
        self._runs = (WARN if loaded.unlearned else OK, said)
        self.note("checkpoint", *self._runs)

    def tell_file(self) -> None:
        """Let the parameter say which file runs, without loading what may have been written to it since."""
        self._is_telling = True
        try:
            self.set_parameters([Parameter("checkpoint", value=self._file)])
        finally:
            self._is_telling = False

    def forget_what_loads(self) -> None:
        """What is being loaded is not to be taken up any more."""
        self._is_unwanted = self._loading is not None

    def adopt(self, loaded: Loaded) -> None:
        """A policy has been loaded while the node runs: take it up, now or when its turn comes."""
        raise NotImplementedError

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name != "checkpoint" or not self._is_loaded or self._is_telling:
                continue
            if self._loading is not None:
                return SetParametersResult(successful=False, reason="another checkpoint is being loaded; wait for it.")
            try:
                read_info(resolve(parameter.value)).contract.check_same(self.contract)
                if parameter.value == self._file and digest(resolve(parameter.value)) == self._digest:
                    self.note("checkpoint", *self._runs)
                    continue  # else it was trained again, to the same file
            except LamError as error:
                return SetParametersResult(successful=False, reason=str(error))
            except Exception as error:  # whatever a file makes of it, the policy that runs goes on
                return SetParametersResult(successful=False, reason=f"{parameter.value} cannot be read: {error!r}.")
            self._unloadable = ""
            self._loading = threading.Thread(target=self._load_beside, args=(parameter.value,), daemon=True)
            self._loading.start()
        return SetParametersResult(successful=True)

    def _load_beside(self, file: str) -> None:
        try:
            self._came = self._load(file)
        except LamError as error:
            self._came = error
        except Exception as error:  # a GPU without room for two, say: whatever it is, the one that runs goes on
            self._came = CheckpointError(f"{file} cannot be loaded: {' '.join(str(error).split())[:300]}.")

    def _adopt_what_came(self) -> None:
        came, self._came = self._came, None
        if came is None:
            return
        self._loading = None
        if self._is_unwanted:
            self._is_unwanted = False
            return
        if isinstance(came, LamError):
            self._unloadable = str(came)
            self.tell_file()
            self.note("checkpoint", ERROR, f"{came} The one before goes on.")
        else:
            self.adopt(came)
        self.publish_diagnostics()

    def close(self) -> None:
        if self._loading is not None:
            self._loading.join()
        super().close()
