"""Keyboard teleoperation as over SSH: a terminal, keys, the arm moves, the take is recorded."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time

import pytest

from lam_ros.bringup import NODES, Options, Process, Supervisor, plan
from lam_ros.demonstrations.episode import list_episodes


class Terminal:
    """A process in a terminal of its own."""

    def __init__(self, command):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
        os.close(slave)
        self.shown = ""

    def type(self, keys):
        os.write(self._master, keys.encode())

    def read(self):
        while select.select([self._master], [], [], 0.0)[0]:
            try:
                self.shown += os.read(self._master, 4096).decode(errors="replace")
            except OSError:  # the other end is gone
                return

    def until_shows(self, text, seconds=60.0):
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            select.select([self._master], [], [], 0.1)
            self.read()


@pytest.fixture
def terminal(domain):
    parameters = {"robot": "desk_arm", "source": "keyboard", "use_sim_time": True}
    made = Terminal(Process(NODES["teleop"], parameters).arguments())
    yield made
    made.process.kill()
    made.process.wait()


def test_keys_move_the_arm_and_record_a_take(watcher, terminal, tmp_path):
    options = Options("desk_arm", task="reach", dataset=str(tmp_path), simulated=True)
    logged = []
    with Supervisor(lambda name, line: logged.append(line)) as supervisor:
        supervisor.start(plan("record", options))
        terminal.until_shows("q/a waist")
        watcher.until(lambda: any("[recorder]: topics: every topic has" in line for line in logged))
        terminal.type(" ")
        terminal.until_shows("episode_000000")
        watcher.until(lambda: watcher.samples)
        start = watcher.samples[-1][1]

        def press():
            terminal.type("q")
            terminal.read()
            return watcher.samples[-1][1] > start + 0.3

        watcher.until(press)
        terminal.type("+\r")
        terminal.until_shows(str(tmp_path / "episode_000000"))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(timeout=30) == 0
        supervisor.check()
    (episode,) = list_episodes(tmp_path)
    assert episode.manifest.outcome == "success"
    assert episode.manifest.drivers["teleop"] > 10
