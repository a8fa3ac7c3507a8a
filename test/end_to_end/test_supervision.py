"""Real processes: who dies is named, the arm holds, the rest goes on; Ctrl-C leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
import torch
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import JointState

from lam_ros.bringup import Options, Supervisor, plan
from lam_ros.config import load_robot
from lam_ros.contract import Contract
from lam_ros.errors import BringUpError
from lam_ros.nodes.base import make_executor, stamp_to_ns
from lam_ros.policy.checkpoint import CheckpointInfo, save_checkpoint
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.policy import PolicyNetwork

_domains = itertools.count(os.getpid() + 37)
HOLD_NS = 200_000_000


@pytest.fixture
def domain(monkeypatch):
    number = 1 + next(_domains) % 100
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number


@pytest.fixture
def restless(tmp_path):
    """A policy that always turns the waist further, so that a hold can be told from a pause."""
    torch.manual_seed(0)
    robot = load_robot("desk_arm")
    contract, config = Contract.of(robot), PolicyConfig(chunk=1)
    network = PolicyNetwork(config, contract)
    with torch.no_grad():
        network.action.head.linear.weight.zero_()
        network.action.head.linear.bias.zero_()
        network.action.head.linear.bias[0] = 0.05
    path = tmp_path / "restless.safetensors"
    save_checkpoint(path, network, CheckpointInfo(contract, config, robot.name, "turn", "none"))
    return path


class Watcher:
    """Follows the waist of the simulated arm, in simulated time."""

    def __init__(self, domain):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("watcher", context=self.context)
        self.executor = make_executor(self.context)
        self.executor.add_node(self.node)
        self.samples = []
        self.node.create_subscription(JointState, "joint_states", self._on_state, 100)

    def _on_state(self, message):
        self.samples.append((stamp_to_ns(message.header.stamp), message.position[0]))

    def until(self, condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"the last samples were {self.samples[-3:]}"
            self.executor.spin_once(timeout_sec=0.02)

    def moved(self, span_ns):
        """How far the waist went in the last ``span_ns``."""
        if not self.samples:
            return 0.0
        end = self.samples[-1][0]
        recent = [angle for stamp, angle in self.samples if stamp >= end - span_ns]
        return abs(recent[-1] - recent[0])

    def close(self):
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def watcher(domain):
    made = Watcher(domain)
    yield made
    made.close()


@pytest.mark.parametrize("victim", ["perception", "action", "gate"])
def test_the_arm_holds_when_a_node_is_killed_and_goes_on_when_it_is_back(watcher, restless, victim):
    options = Options("desk_arm", checkpoint=str(restless), simulated=True)
    with Supervisor(lambda name, line: print(f"[{name}] {line}")) as supervisor:
        supervisor.start(plan("deploy", options))
        watcher.until(lambda: watcher.moved(300_000_000) > 0.03)
        os.kill(supervisor.pid(victim), signal.SIGKILL)
        killed_ns = watcher.samples[-1][0]
        watcher.until(lambda: watcher.samples[-1][0] > killed_ns + 900_000_000)
        held = np.array([angle for stamp, angle in watcher.samples if stamp >= killed_ns + HOLD_NS])
        # Less than a tenth of the speed it had: what remains is the servo settling.
        assert np.ptp(held) < 0.01, f"the waist still moved by {np.ptp(held):.3f} rad"
        with pytest.raises(BringUpError, match=f"{victim} was killed by SIGKILL"):
            supervisor.check()
        assert f"{victim} was killed by SIGKILL" in supervisor.revive()
        watcher.until(lambda: watcher.moved(300_000_000) > 0.03)
        supervisor.check()


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.fixture
def lam_up(domain, restless):
    command = [sys.executable, "-m", "lam_ros.cli.main", "up", "deploy", "--simulated", "--checkpoint", str(restless)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines_until(process, "policy drives")
    yield process
    process.kill()
    process.wait()


def lines_until(process, pattern):
    seen = []
    for line in process.stdout:
        seen.append(line)
        if re.search(pattern, line):
            return "".join(seen)
    raise AssertionError(f"{pattern} was never said:\n{''.join(seen)}")


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_ctrl_c_ends_with_zero_and_no_orphan(lam_up):
    process = lam_up
    nodes = children_of(process.pid)
    assert len(nodes) == 4
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    assert all(is_gone(pid) for pid in nodes)


def test_the_death_of_a_node_ends_the_bring_up_with_its_name(lam_up):
    process = lam_up
    nodes = children_of(process.pid)
    victim = next(pid for pid in nodes if "perception" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(victim, signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "perception was killed by SIGKILL" in rest
    assert all(is_gone(pid) for pid in nodes)


def test_killing_lam_itself_leaves_no_orphan(watcher, lam_up):
    process = lam_up
    nodes = children_of(process.pid)
    process.kill()
    process.communicate(timeout=60)
    watcher.until(lambda: all(is_gone(pid) for pid in nodes))


def test_a_node_that_cannot_configure_says_why(domain, restless, tmp_path):
    from lam_ros.share import share_path

    other = tmp_path / "other.yaml"
    other.write_text(
        share_path("config/desk_arm.yaml").read_text().replace("policy: {rate_hz: 20.0", "policy: {rate_hz: 10.0")
    )
    command = [sys.executable, "-m", "lam_ros.cli.main", "up", "deploy", "--simulated"]
    ended = subprocess.run(
        [*command, "--robot", str(other), "--checkpoint", str(restless)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "rate_hz = 20, this robot has 10" in ended.stdout.replace("\n", " ")
