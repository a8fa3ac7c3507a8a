"""The node table and what each bring-up starts of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import yaml

from lam_ros.bringup import NODES, NodeSpec, Options, Process, Supervisor, node_environment, plan
from lam_ros.errors import BringUpError, ConfigError

FOREVER = "import signal; signal.pause()"


def names(processes: list[Process]) -> list[str]:
    return [process.node.name for process in processes]


def parameters(processes: list[Process], name: str) -> Mapping[str, Any]:
    (found,) = [process.parameters for process in processes if process.node.name == name]
    return found


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    file = tmp_path / "policy.safetensors"
    file.touch()
    return str(file)


def test_every_part_of_a_process_is_a_module_of_nodes() -> None:
    for name, spec in NODES.items():
        assert spec.name == name
        for part in spec.parts:
            assert importlib.util.find_spec(f"lam_ros.nodes.{part}") is not None


def test_simulate_starts_the_robot_and_its_gate() -> None:
    processes = plan("simulate", Options("desk_arm", task="push", mode="lockstep", simulation={"seed": 3}))
    assert names(processes) == ["simulation", "gate"]
    simulation = parameters(processes, "simulation")
    assert simulation == {"robot": "desk_arm", "task": "push", "mode": "lockstep", "seed": 3}
    assert parameters(processes, "gate") == {"robot": "desk_arm", "use_sim_time": True, "autostart": True}


def test_simulate_with_an_expert_lets_it_drive() -> None:
    processes = plan("simulate", Options("desk_arm", task="push", teleop="expert"))
    assert names(processes) == ["simulation", "gate", "teleop"]
    teleop = parameters(processes, "teleop")
    assert teleop == {"robot": "desk_arm", "use_sim_time": True, "source": "expert", "task": "push"}


def test_simulate_with_a_checkpoint_lets_the_policy_drive(checkpoint: str) -> None:
    processes = plan("simulate", Options("desk_arm", checkpoint=checkpoint, teleop="expert"))
    assert names(processes) == ["simulation", "gate", "action", "perception"]
    on_gpu = plan("simulate", Options("desk_arm", checkpoint=checkpoint, provider="CUDA"))
    for name in ("action", "perception"):
        assert parameters(processes, name)["provider"] == "CPU"
        assert parameters(on_gpu, name)["provider"] == "CUDA"


def test_record_on_a_robot_needs_no_simulator(tmp_path: Path) -> None:
    options = Options("desk_arm", dataset=str(tmp_path / "data"), task="fold the towel", teleop="expert")
    processes = plan("record", options)
    assert names(processes) == ["gate", "recorder", "teleop"]
    recorder = parameters(processes, "recorder")
    assert recorder["dataset"] == str(tmp_path / "data")
    assert recorder["task"] == "fold the towel"
    assert recorder["autostart"] is True
    assert recorder["use_sim_time"] is False


def test_a_policy_beside_a_recording_only_predicts(tmp_path: Path, checkpoint: str) -> None:
    processes = plan("record", Options("desk_arm", dataset=str(tmp_path), checkpoint=checkpoint, teleop="expert"))
    assert names(processes) == ["gate", "recorder", "action", "perception", "teleop"]
    assert parameters(processes, "action")["shadow"] is True
    assert "shadow" not in parameters(plan("deploy", Options("desk_arm", checkpoint=checkpoint)), "action")


def test_record_in_simulation_follows_simulated_time(tmp_path: Path) -> None:
    processes = plan("record", Options("desk_arm", dataset=str(tmp_path), simulated=True, teleop="expert"))
    assert names(processes) == ["simulation", "gate", "recorder", "teleop"]
    assert all(process.parameters["use_sim_time"] for process in processes[1:])


def test_nodes_get_paths_that_hold_anywhere(tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = parameters(plan("record", Options("desk_arm", dataset="data")), "recorder")
    assert recorder["dataset"] == str(tmp_path / "data")
    action = parameters(plan("deploy", Options("desk_arm", checkpoint="policy.safetensors")), "action")
    assert action["checkpoint"] == checkpoint


@pytest.mark.parametrize(("composed", "expected"), [(False, ["gate", "action", "perception"]), (True, ["composed"])])
def test_deploy_starts_the_gate_before_what_moves_the_arm(checkpoint: str, composed: bool, expected: list[str]) -> None:
    processes = plan("deploy", Options("desk_arm", checkpoint=checkpoint, composed=composed, teleop="expert"))
    assert names(processes) == expected
    assert NODES["composed"].parts == ("gate", "action", "perception")
    assert parameters(processes, expected[-1])["checkpoint"] == checkpoint


def test_what_is_missing_is_said_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(BringUpError, match="deploy needs a policy: give --checkpoint FILE"):
        plan("deploy", Options("desk_arm"))
    with pytest.raises(BringUpError, match=r"there is no checkpoint .*none\.safetensors; give the file that"):
        plan("deploy", Options("desk_arm", checkpoint=str(tmp_path / "none.safetensors")))
    with pytest.raises(BringUpError, match="the simulator gazebo is the robot only with --simulated"):
        plan("deploy", Options("desk_arm", str(Path(__file__)), simulator="gazebo"))
    with pytest.raises(BringUpError, match="record needs a folder for the episodes: give --out DIR"):
        plan("record", Options("desk_arm"))
    with pytest.raises(ConfigError, match="no_robot"):
        plan("simulate", Options("no_robot.yaml"))


def test_a_process_that_ends_well_is_not_missed() -> None:
    spawner, gate = Process(NodeSpec("spawner", (), "", ends=True)), Process(NODES["gate"])
    assert [spawner.has_failed(code) for code in (None, 0, 1, -9)] == [False, False, True, True]
    assert [gate.has_failed(code) for code in (None, 0, 1, -9)] == [False, True, True, True]


@pytest.mark.parametrize(
    "value", ["reach", "007", "yes", "1e3", "put: it 'in' the \"box\"", "Würfel", "box 📦", "", True, 3, 0.5]
)
def test_parameters_survive_the_command_line(value: Any) -> None:
    process = Process(NODES["recorder"], {"task": value})
    flag, pair = process.arguments()[-2:]
    name, _, text = pair.partition(":=")
    assert (flag, name) == ("-p", "task")
    assert yaml.safe_load(text) == value
    assert type(yaml.safe_load(text)) is type(value)


def test_nodes_get_the_large_message_profile() -> None:
    environment = node_environment({"PATH": "/bin"})
    assert Path(environment["FASTDDS_DEFAULT_PROFILES_FILE"]).name == "fastdds.xml"
    assert Path(environment["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()
    assert environment["PATH"] == "/bin"


@pytest.mark.parametrize("distribution", ["humble", "iron"])
def test_older_distributions_know_the_profile_by_its_older_name(distribution: str) -> None:
    environment = node_environment({"ROS_DISTRO": distribution})
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" in environment
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in environment


def test_a_node_has_its_own_keys_and_not_those_of_the_shell() -> None:
    assert "ROS_SECURITY_ENCLAVE_OVERRIDE" not in node_environment({"ROS_SECURITY_ENCLAVE_OVERRIDE": "/operator"})


@pytest.mark.parametrize(
    "name", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS"]
)
def test_the_users_own_fast_dds_settings_stay(name: str) -> None:
    environment = node_environment({name: "mine"})
    assert {key: value for key, value in environment.items() if key.startswith("FAST")} == {name: "mine"}


@dataclass(frozen=True)
class Script(Process):
    """A process of plain Python in a node's place."""

    code: str = ""

    def arguments(self) -> list[str]:
        return [sys.executable, "-c", self.code]


def script(name: str, code: str) -> Script:
    return Script(NodeSpec(name, (), ""), code=code)


def wait_until_dead(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_dead_process_is_named_with_its_last_words() -> None:
    heard: Queue[tuple[str, str]] = Queue()
    with Supervisor(lambda name, line: heard.put((name, line)), os.environ) as supervisor:
        supervisor.start([script("action", FOREVER), script("gate", "print('no limits'); raise SystemExit(3)")])
        assert heard.get(timeout=60) == ("gate", "no limits")
        wait_until_dead(supervisor.pid("gate"))
        with pytest.raises(BringUpError, match="gate ended with exit code 3: no limits"):
            supervisor.check()


def test_a_log_that_cannot_be_written_does_not_stop_the_reading() -> None:
    heard: Queue[str] = Queue()

    def log(name: str, line: str) -> None:
        if line == "first":
            raise OSError(28, "No space left on device")
        heard.put(line)

    with Supervisor(log, os.environ) as supervisor:
        supervisor.start([script("gate", f"print('first', flush=True); print('second', flush=True); {FOREVER}")])
        assert heard.get(timeout=60) == "second"


def test_a_process_has_the_variables_of_its_own_beside_those_of_all() -> None:
    heard: Queue[tuple[str, str]] = Queue()
    shown = "import os; print(os.environ['OURS'], os.environ['HOME'], flush=True)"
    process = dataclasses.replace(script("gz", f"{shown}; {FOREVER}"), environment={"OURS": "1"})
    with Supervisor(lambda name, line: heard.put((name, line)), os.environ) as supervisor:
        supervisor.start([process])
        assert heard.get(timeout=60) == ("gz", f"1 {os.environ['HOME']}")


def test_what_a_process_had_started_ends_with_it() -> None:
    heard: Queue[tuple[str, str]] = Queue()
    window = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); {FOREVER}"
    started = f"subprocess.Popen([sys.executable, '-c', {window!r}])"
    gazebo = f"import subprocess, sys; print({started}.pid, flush=True); {FOREVER}"
    with Supervisor(lambda name, line: heard.put((name, line)), os.environ) as supervisor:
        supervisor.start([script("gz", gazebo)])
        said = {heard.get(timeout=60)[1] for _ in range(2)}
        (pid,) = said - {"up"}
        watched = os.pidfd_open(int(pid))
    ended, _, _ = select.select([watched], [], [], 30)
    os.close(watched)
    assert ended


def test_a_killed_process_is_revived() -> None:
    with Supervisor(lambda name, line: None, os.environ) as supervisor:
        supervisor.start([script("action", FOREVER)])
        first = supervisor.pid("action")
        assert supervisor.revive() is None
        os.kill(first, 9)
        wait_until_dead(first)
        assert supervisor.revive() == "action was killed by SIGKILL; it is started again."
        second = supervisor.pid("action")
        assert second != first
        supervisor.check()
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


@pytest.mark.parametrize("name", ["gate", "composed", "teleop"])
def test_what_commands_the_arm_does_not_come_back_by_itself(name: str) -> None:
    """A gate that is started again knows of no emergency stop that was pressed before."""
    with Supervisor(lambda name, line: None, os.environ) as supervisor:
        supervisor.start([script(name, FOREVER)])
        os.kill(supervisor.pid(name), 9)
        wait_until_dead(supervisor.pid(name))
        with pytest.raises(BringUpError, match=f"{name} was killed by SIGKILL"):
            supervisor.revive()


SLOW_TO_END = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    print("runs", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(2)
    print("sealed", flush=True)
"""


@pytest.mark.parametrize(("name", "is_waited_for"), [("recorder", True), ("action", False)])
def test_a_recorder_has_the_time_to_seal(monkeypatch: pytest.MonkeyPatch, name: str, is_waited_for: bool) -> None:
    monkeypatch.setattr("lam_ros.bringup.GRACE_S", 0.3)
    heard: Queue[tuple[str, str]] = Queue()
    with Supervisor(lambda name, line: heard.put((name, line)), os.environ) as supervisor:
        supervisor.start([script(name, SLOW_TO_END)])
        assert heard.get(timeout=60) == (name, "runs")
        popen = supervisor._running[name][1]
    assert popen.returncode == (0 if is_waited_for else -9)


def test_a_node_whose_launcher_was_killed_before_it_could_ask_ends() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    said = "import sys; from lam_ros.bringup import follow_parent; follow_parent(int(sys.argv[1])); print('drives')"
    for launcher, code in ((gone.pid, -signal.SIGTERM), (os.getpid(), 0)):
        ended = subprocess.run([sys.executable, "-c", said, str(launcher)], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (code, "" if code else "drives\n")


def test_processes_of_a_job_in_the_background_hear_that_they_shall_end() -> None:
    """Where a script says `lam up simulate &`, SIGINT is ignored."""
    heard: Queue[tuple[str, str]] = Queue()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Supervisor(lambda name, line: heard.put((name, line)), os.environ) as supervisor:
            supervisor.start([script("recorder", SLOW_TO_END)])
            assert heard.get(timeout=60) == ("recorder", "runs")
        assert heard.get(timeout=60) == ("recorder", "sealed")
    finally:
        signal.signal(signal.SIGINT, handler)
