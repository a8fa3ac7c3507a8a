"""`lam trial` in a terminal, the embedded simulator as the robot, this test as its operator."""

from __future__ import annotations

import json
import sys
import time

from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from lam_ros.demonstrations.episode import list_episodes
from lam_ros.nodes.qos import LATCHED

LAM = [sys.executable, "-m", "lam_ros.cli.main", "trial"]


def test_two_policies_are_compared_blind_by_key_time_and_takeover(
    watcher, turning_policy, open_terminal, desk_arm_with, tmp_path
):
    policies = []
    for number, turn in enumerate((0.2, -0.2)):
        policies.append(tmp_path / f"policy_{number}.safetensors")
        turning_policy(turn, 1e-3).rename(policies[-1])
    out = tmp_path / "trials"
    arm = desk_arm_with(gate={"after_teleop": "hold"})
    command = [*LAM, *map(str, policies), "--robot", arm, "--task", "reach", "--out", str(out), "--trials", "2"]
    terminal = open_terminal([*command, "--seconds", "8", "--simulated"])

    commands, by_hand = [], watcher.node.create_publisher(JointState, "teleop/command", 1)
    watcher.node.create_subscription(JointState, "lam/command", commands.append, 50)

    def driven_by(driver):
        return lambda: any(sent.header.frame_id == driver for sent in commands)

    def begin(number, meanwhile=lambda: None):
        terminal.until_shows(f"trial {number} of 4: set the scene", 120.0)
        # What the last trial's policy commanded may still be on its way.
        heard_s = time.monotonic() + 1.0
        watcher.until(lambda: time.monotonic() > heard_s)
        commands.clear()
        terminal.type(" ")
        meanwhile()
        watcher.until(driven_by("policy"), 60.0)
        return lambda ending: terminal.until_shows(f"trial {number}: {ending}", 60.0)

    ends = begin(1)
    terminal.type("+")
    ends("success")
    ends = begin(2)
    takeovers = watcher.node.create_publisher(Bool, "lam/takeover", LATCHED)
    takeovers.publish(Bool(data=True))

    def is_driven_by_hand():
        by_hand.publish(commands[-1])
        return driven_by("teleop")()

    watcher.until(is_driven_by_hand, 60.0)
    ends("takeover")

    def let_go():
        terminal.until_shows("somebody drives by hand; let go, and the trial begins", 60.0)
        takeovers.publish(Bool(data=False))

    begin(3, meanwhile=let_go)("time")
    terminal.until_shows("trial 4 of 4", 120.0)
    terminal.type("q")
    terminal.until_shows("out of", 60.0)
    assert terminal.process.wait(60) == 0
    first, *turns = (json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines())
    assert [turn["ending"] for turn in turns] == ["success", "takeover", "time"]
    assert {turns[0]["policy"], turns[1]["policy"]} == set(first["policies"])
    assert [episode.manifest.outcome for episode in list_episodes(out / "episodes")] == [
        "success",
        "failure",
        "failure",
    ]
    assert sorted(file.name for file in out.glob("*.webp")) == ["failure_002.webp", "failure_003.webp"]
