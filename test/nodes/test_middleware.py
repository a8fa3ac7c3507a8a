"""A node whose shared-memory port is taken from under it notices, and starts anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from std_srvs.srv import Trigger

from lam_ros.bringup import NODES, Process, node_environment
from lam_ros.nodes.middleware import MOST_RESTARTS, RESTARTS, is_deaf, own_ports, restart

# In a process of its own: what is deleted here would make every later test deaf.
DEAFENED = """
import os, rclpy
from rclpy.node import Node
from lam_ros.nodes.middleware import is_deaf, own_ports
rclpy.init()
node = Node("victim")
assert own_ports() and not is_deaf()
os.unlink(min(own_ports()))
assert is_deaf()
"""


def test_a_process_knows_its_ports_and_when_one_is_deleted(domain):
    ended = subprocess.run([sys.executable, "-c", DEAFENED], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_deaf_node_starts_anew_and_hears_again(graph, domain, tmp_path):
    parameters = {"robot": "desk_arm", "autostart": True, "dataset": str(tmp_path), "task": "wave"}
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        Process(NODES["recorder"], parameters).arguments(), env=node_environment(), stdout=log, stderr=log
    )
    try:
        assert "nothing has been recorded" in graph.ask(Trigger, "recorder/mark_success").message
        for port in own_ports(process.pid):
            os.unlink(port)

        def said():
            return (tmp_path / "log").read_text()

        graph.until(lambda: "this node starts anew" in said())
        graph.until(lambda: said().count("activation: done") == 2)

        def answers():
            client = graph.probe.create_client(Trigger, "recorder/mark_success")
            future = client.call_async(Trigger.Request())
            deadline = time.monotonic() + 1.0
            while not future.done() and time.monotonic() < deadline:
                graph.executor.spin_once(timeout_sec=0.05)
            return future.done()

        graph.until(answers)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_restarting_ends_where_it_does_not_help(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(os, "closerange", lambda *arguments: None)  # this process lives on
    for restarts in range(MOST_RESTARTS + 2):
        monkeypatch.setenv(RESTARTS, str(restarts))
        restart()
    assert len(started) == MOST_RESTARTS


def test_where_proc_cannot_be_read_nobody_is_deaf(monkeypatch):
    def refuse(*arguments):
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert not is_deaf()
