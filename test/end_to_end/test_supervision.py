"""Real processes: who dies is named, the arm holds, the rest goes on; Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lam_ros.bringup import Options, Supervisor, plan
from lam_ros.cli import steps
from lam_ros.errors import BringUpError
from test.conftest import children_of, is_gone

HOLD_NS = 200_000_000


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
        if victim == "gate":  # it would know of no emergency stop that was pressed before
            with pytest.raises(BringUpError, match="gate was killed by SIGKILL"):
                supervisor.revive()
            return
        assert f"{victim} was killed by SIGKILL" in supervisor.revive()
        watcher.until(lambda: watcher.moved(300_000_000) > 0.03)
        supervisor.check()


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


def all_ends_well_after_ctrl_c(process, interrupt):
    nodes = children_of(process.pid)
    assert len(nodes) == 4
    interrupt()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    assert "Exception" not in rest
    assert all(is_gone(pid) for pid in nodes)


def test_ctrl_c_ends_with_zero_and_no_orphan(lam_up):
    all_ends_well_after_ctrl_c(lam_up, lambda: lam_up.send_signal(signal.SIGINT))


def test_so_does_ros2_launch_where_it_is(domain, restless):
    pytest.importorskip("ros2launch", reason="ros2 launch comes as no wheel; `colcon test` has it")
    command = ["ros2", "launch", "lam_ros", "deploy.launch.py", "simulated:=true", f"checkpoint:={restless}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        lines_until(process, "policy drives")
        # A terminal interrupts all of its foreground group, and launch counts on it.
        all_ends_well_after_ctrl_c(process, lambda: os.killpg(process.pid, signal.SIGINT))
    finally:
        process.kill()
        process.wait()


IMPATIENT = """
import os, signal, sys, threading, time
from lam_ros.nodes.base import PlainNode, run

class Slow(PlainNode):
    def __init__(self):
        super().__init__("slow")
    def close(self):
        print("closing", flush=True)
        time.sleep(1.5)
        print("sealed", flush=True)

arguments = ["--ros-args", "-p", "robot:=desk_arm"]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started by: under nohup it stays ignored
threading.Timer(1.0, os.kill, (os.getpid(), signal.FIRST)).start()
raise SystemExit(run([Slow], arguments))
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGHUP"])  # the second: its terminal is closed
def test_who_asks_twice_does_not_cut_off_what_is_being_sealed(domain, first):
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT.replace("FIRST", first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines_until(process, "closing")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "ending; what is recorded is sealed first." in rest
    assert "sealed\n" in rest


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


def test_a_node_that_cannot_configure_says_why(domain, restless, desk_arm_with):
    other = desk_arm_with(policy={"rate_hz": 15.0})
    command = [sys.executable, "-m", "lam_ros.cli.main", "up", "deploy", "--simulated"]
    ended = subprocess.run(
        [*command, "--robot", other, "--checkpoint", str(restless)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "rate_hz = 20, this robot has 15" in ended.stdout.replace("\n", " ")


def test_an_arm_held_as_astray_fails_its_episode_and_the_next_one_goes_on(domain, robot, desk_arm_with, tmp_path):
    # Less than what its servos lag behind.
    strict = desk_arm_with(joints={joint: {"following_error": 0.004} for joint in robot.joints})
    told = []
    performance = steps.perform(strict, "reach", None, 2, 7, tmp_path / "nodes.log", told.append)
    assert [(result.seed, result.success) for result in performance.results] == [(7, False), (8, False)]
    assert told == performance.results
    assert "from where it was sent" in (tmp_path / "nodes.log").read_text()
