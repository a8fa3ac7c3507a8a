"""Keyboard teleoperation as over SSH: a terminal, keys, the arm moves, the take is recorded."""

from __future__ import annotations

import signal

import pytest

from lam_ros.bringup import NODES, Options, Process, Supervisor, plan
from lam_ros.demonstrations.episode import list_episodes


@pytest.fixture
def terminal(domain, open_terminal):
    parameters = {"robot": "desk_arm", "source": "keyboard", "use_sim_time": True}
    return open_terminal(Process(NODES["teleop"], parameters).arguments())


def test_keys_move_the_arm_and_record_a_take(watcher, terminal, tmp_path):
    options = Options("desk_arm", task="reach", dataset=str(tmp_path), simulated=True)
    logged = []
    with Supervisor(lambda name, line: logged.append(line)) as supervisor:
        supervisor.start(plan("record", options))
        terminal.until_shows("q/a waist")
        watcher.until(lambda: any("[recorder]: topics: every topic has" in line for line in logged))
        terminal.until_shows("[teleop]: topics: every topic has its other end")
        terminal.type(" ")

        def records():
            terminal.read()
            if "no recorder is running" in terminal.shown:  # teleop has not heard of its services yet
                terminal.forget()
                terminal.type(" ")
            return "episode_000000" in terminal.shown

        watcher.until(records)
        watcher.until(lambda: watcher.samples)
        start = watcher.samples[-1][1]

        def press():
            terminal.type("q")
            terminal.read()
            return watcher.samples[-1][1] > start + 1.0

        watcher.until(press)
        terminal.type("+\r")
        terminal.until_shows(str(tmp_path / "episode_000000"))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(timeout=60) == 0
        supervisor.check()
    (episode,) = list_episodes(tmp_path)
    assert episode.manifest.outcome == "success"
    assert episode.manifest.drivers["teleop"] > 10
