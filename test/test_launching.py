"""The launch files, with stand-ins that take what launch and launch_ros take from Humble to rolling, no more."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lam_ros.bringup import GazeboOptions, Options, gazebo_processes
from lam_ros.launching import ARGUMENTS
from lam_ros.share import share_path

PACKAGES = "share/ament_index/resource_index/packages"
LAUNCH_FILES = ("simulate", "record", "deploy", "gazebo", "view")

# Read off the sources of launch and launch_ros, branches humble and rolling: names, and the keywords that they take.
NODE_KEYWORDS = {
    *("package", "executable", "name", "namespace", "parameters", "remappings", "arguments", "ros_arguments"),
    *("output", "emulate_tty", "respawn", "respawn_delay", "sigterm_timeout", "additional_env"),
}
KEYWORDS: dict[str, dict[str, set[str]]] = {
    "launch": {"LaunchDescription": set()},
    "launch.actions": {
        "DeclareLaunchArgument": {"default_value", "description", "choices"},
        "EmitEvent": {"event"},
        "ExecuteProcess": {"cmd", "name", "output", "additional_env"},
        "LogInfo": {"msg"},
        "OpaqueFunction": {"function", "args", "kwargs"},
        "RegisterEventHandler": set(),
        "SetEnvironmentVariable": set(),
    },
    "launch.event_handlers": {"OnProcessExit": {"target_action", "on_exit"}},
    "launch.events": {"Shutdown": {"reason"}},
    "launch_ros.actions": {"Node": NODE_KEYWORDS, "LifecycleNode": NODE_KEYWORDS},
    "launch_ros.parameter_descriptions": {"ParameterValue": {"value_type"}},
    "ament_index_python.packages": {"get_package_prefix": set(), "PackageNotFoundError": set()},
}


@dataclass
class Action:
    """What a stand-in was made with."""

    kind: str
    given: tuple[Any, ...]
    named: dict[str, Any] = field(default_factory=dict)


def stand_in(name: str, keywords: set[str]) -> Any:
    def make(*given: Any, **named: Any) -> Action:
        assert set(named) <= keywords, f"{name} takes no {set(named) - keywords} in every distribution"
        return Action(name, given, named)

    return make


@pytest.fixture
def installed() -> set[str]:
    """ROS packages that are there."""
    return {"robot_state_publisher", "tf2_ros", "rviz2", "foxglove_bridge"}


@pytest.fixture
def _launch(monkeypatch: pytest.MonkeyPatch, installed: set[str]) -> None:
    for module, names in KEYWORDS.items():
        made = ModuleType(module)
        for name, keywords in names.items():
            setattr(made, name, stand_in(name, keywords))
        monkeypatch.setitem(sys.modules, module, made)
        package = module.partition(".")[0]
        if package not in KEYWORDS:
            monkeypatch.setitem(sys.modules, package, ModuleType(package))

    class PackageNotFoundError(KeyError):
        pass

    def prefix(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return "/opt/ros"

    packages: Any = sys.modules["ament_index_python.packages"]
    packages.PackageNotFoundError, packages.get_package_prefix = PackageNotFoundError, prefix


def described(name: str) -> Action:
    """What launch/<name>.launch.py describes."""
    spec = importlib.util.spec_from_file_location(name, share_path(f"launch/{name}.launch.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.generate_launch_description()
    assert isinstance(made, Action)
    return made


def started(name: str, **arguments: str) -> list[Action]:
    """The actions of a launch with these arguments."""
    (*declared, opaque) = described(name).given[0]
    configurations = {action.given[0]: action.named["default_value"] for action in declared}
    assert set(arguments) <= set(configurations)
    context = SimpleNamespace(launch_configurations={**configurations, **arguments})
    return list(opaque.named["function"](context))


def nodes(actions: list[Action]) -> dict[str, Action]:
    return {a.named["executable"]: a for a in actions if a.kind in ("Node", "LifecycleNode")}


def parameters(node: Action) -> dict[str, Any]:
    """A node's own parameters; a text is told to be one, since launch would read it as YAML."""
    found = {}
    for name, value in node.named["parameters"][0].items():
        assert not isinstance(value, str)
        found[name] = value
        if isinstance(value, Action):
            assert (value.kind, value.named) == ("ParameterValue", {"value_type": str})
            (found[name],) = value.given
    return found


@pytest.mark.parametrize("file", ["lam_ros/launching.py", *(f"launch/{name}.launch.py" for name in LAUNCH_FILES)])
def test_only_names_of_every_distribution_are_imported(file: str) -> None:
    tree = ast.parse(share_path("package.xml").parent.joinpath(file).read_text())
    for found in ast.walk(tree):
        if isinstance(found, ast.ImportFrom) and found.module in KEYWORDS:
            assert {alias.name for alias in found.names} <= set(KEYWORDS[found.module])
        elif isinstance(found, ast.ImportFrom):
            assert not str(found.module).startswith(("launch", "ament")), f"{found.module} is in no list of this test"


@pytest.mark.usefixtures("_launch")
@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_every_argument_is_described(name: str) -> None:
    declared = described(name).given[0][:-1]
    assert {action.given[0] for action in declared} >= {
        "robot",
        "namespace",
        "params_file",
        "log_level",
        "use_sim_time",
    }
    for action in declared:
        assert action.named["description"] == ARGUMENTS[action.given[0]]


@pytest.mark.usefixtures("_launch")
def test_every_launch_file_is_tested() -> None:
    assert {path.name for path in share_path("launch").iterdir() if path.suffix == ".py"} == {
        f"{name}.launch.py" for name in LAUNCH_FILES
    }


@pytest.mark.usefixtures("_launch")
def test_a_namespace_holds_all_nodes_and_their_clock() -> None:
    for node in nodes(started("simulate", namespace="left", task="push")).values():
        assert node.named["namespace"] == "left"
        assert node.named["remappings"] == [("/clock", "clock")]
    for node in nodes(started("simulate")).values():
        assert "remappings" not in node.named


@pytest.mark.usefixtures("_launch")
def test_lifecycle_nodes_report_their_transitions_to_the_launch(tmp_path: Path) -> None:
    found = nodes(started("record", dataset=str(tmp_path), simulated="true", teleop="expert"))
    kinds = {name: action.kind for name, action in found.items()}
    assert kinds == {
        "simulation_node": "Node",
        "gate_node": "LifecycleNode",
        "recorder_node": "LifecycleNode",
        "teleop_node": "Node",
    }


@pytest.mark.usefixtures("_launch")
def test_the_gate_never_comes_back_by_itself(tmp_path: Path) -> None:
    checkpoint = tmp_path / "policy.safetensors"
    checkpoint.touch()
    actions = started("deploy", checkpoint=str(checkpoint), respawn="true", simulated="true")
    respawning = {name for name, action in nodes(actions).items() if action.named["respawn"]}
    assert respawning == {"perception_node", "action_node"}
    ending = [
        a.given[0].named["target_action"].named["executable"] for a in actions if a.kind == "RegisterEventHandler"
    ]
    assert ending == ["simulation_node", "gate_node"]


@pytest.mark.usefixtures("_launch")
def test_the_end_of_a_node_ends_all_but_once() -> None:
    (first, *_) = [a.given[0] for a in started("simulate") if a.kind == "RegisterEventHandler"]
    event = SimpleNamespace(process_name="gate_node-2", returncode=0)
    (emitted,) = first.named["on_exit"](event, SimpleNamespace(is_shutdown=False))
    assert emitted.named["event"].named["reason"] == "gate_node-2 ended"
    assert first.named["on_exit"](event, SimpleNamespace(is_shutdown=True)) is None


@pytest.mark.usefixtures("_launch")
def test_arguments_reach_the_nodes(tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text("/**:\n  ros__parameters:\n    seed: 7\n")
    found = nodes(
        started(
            "simulate", params_file=str(file), log_level="debug", use_sim_time="false", autostart="false", task="push"
        )
    )
    gate, simulation = found["gate_node"].named, found["simulation_node"].named
    assert parameters(found["simulation_node"])["task"] == "push"
    assert "use_sim_time" not in simulation["parameters"][0]  # it makes the time
    assert parameters(found["gate_node"]) == {"robot": "desk_arm", "use_sim_time": False, "autostart": False}
    assert gate["parameters"][1:] == [str(file)]
    assert gate["ros_arguments"] == ["--log-level", "debug"]


@pytest.mark.usefixtures("_launch")
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"composed": "perhaps"}, "composed:=perhaps is neither true nor false"),
        ({"use_sim_time": "yes"}, "use_sim_time:=yes is none of true, false and auto"),
        ({"params_file": "/no/such.yaml"}, "there is no parameter file /no/such.yaml"),
        ({"checkpoint": "none.safetensors"}, "there is no checkpoint none.safetensors"),
        ({"robot": "no_robot"}, "no_robot"),
    ],
)
def test_a_wrong_argument_is_one_sentence(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        started("simulate", **given)


@pytest.fixture
def gazebo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Gazebo, its bridge and a display are there, as far as looking at the environment can tell."""
    monkeypatch.setenv("DISPLAY", ":0")
    program = tmp_path / "bin" / "gz"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    (tmp_path / PACKAGES).mkdir(parents=True)
    (tmp_path / PACKAGES / "ros_gz_bridge").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    return program


@pytest.mark.usefixtures("_launch", "gazebo")
def test_gazebo_runs_the_tasks_world_behind_its_bridge() -> None:
    actions = started("gazebo", task="push", headless="true", render_engine="ogre2", namespace="left")
    (server,) = [action.named["cmd"] for action in actions if action.kind == "ExecuteProcess"]
    assert server[:5] == ["gz", "sim", "-r", "-s", "--headless-rendering"]
    assert '<world name="lam_push">' in Path(server[5]).read_text()
    found = nodes(actions)
    assert list(found) == ["parameter_bridge", "gazebo_node", "gate_node", "teleop_node"]
    bridge = found["parameter_bridge"].named
    assert (bridge["package"], bridge["namespace"]) == ("ros_gz_bridge", "left")
    assert "camera/wrist/image_raw" in Path(parameters(found["parameter_bridge"])["config_file"]).read_text()
    assert all(
        node.named["parameters"][0]["use_sim_time"] for name, node in found.items() if name != "parameter_bridge"
    )
    ending = [a.given[0].named["target_action"].kind for a in actions if a.kind == "RegisterEventHandler"]
    assert ending.count("ExecuteProcess") == 1


@pytest.mark.usefixtures("_launch", "gazebo")
@pytest.mark.parametrize("variable", ["GZ_PARTITION", "IGN_PARTITION"])
def test_two_gazebos_in_two_namespaces_do_not_hear_each_other(variable: str) -> None:
    def partitions(namespace: str) -> set[str | None]:
        actions = started("gazebo", namespace=namespace)
        speak = [action for action in actions if action.kind == "ExecuteProcess"]
        speak += [nodes(actions)[name] for name in ("parameter_bridge", "gazebo_node")]
        assert len(speak) == 3
        return {action.named["additional_env"].get(variable) for action in speak}

    assert partitions("left") == {"left"}
    assert partitions("/right/") == {"right"}
    assert partitions("") == {None}, "the user's own"


@pytest.mark.usefixtures("_launch")
def test_on_humble_gazebo_is_fortress_beside_a_classic_gz(gazebo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program() -> str:
        (server,) = [a.named["cmd"] for a in started("gazebo") if a.kind == "ExecuteProcess"]
        return str(server[0])

    shutil.copy(gazebo, gazebo.with_name("ign"))
    monkeypatch.setenv("ROS_DISTRO", "humble")
    assert program() == "ign"
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert program() == "gz"


@pytest.mark.usefixtures("_launch", "gazebo")
def test_without_mujoco_the_world_cannot_be_written_and_a_sentence_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lam_ros.simulation.gazebo", raising=False)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(RuntimeError, match=r"finds no mujoco: `pip install mujoco mink daqp`"):
        started("gazebo")


@pytest.mark.usefixtures("_launch", "gazebo")
def test_a_robot_whose_pictures_come_compressed_is_not_for_gazebo(desk_arm_with: Callable[..., str]) -> None:
    compressed = desk_arm_with(cameras={"front": {"transport": "compressed"}})
    with pytest.raises(RuntimeError, match="gives raw pictures, and desk_arm wants them compressed"):
        started("gazebo", robot=compressed)


@pytest.mark.usefixtures("_launch", "gazebo")
def test_gazebo_shows_a_window_where_there_is_a_display_and_draws_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def server(**given: str) -> list[str]:
        (command,) = [a.named["cmd"] for a in started("gazebo", **given) if a.kind == "ExecuteProcess"]
        return list(command)

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert server(render_engine="ogre2")[3:5] == ["-s", "--headless-rendering"]
    with pytest.raises(RuntimeError, match=r"ogre draws on a display only, and there is none: .*xvfb-run -a"):
        server(render_engine="ogre")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert len(server(render_engine="ogre2")) == 4, "the world follows, and no option"
    assert server(render_engine="ogre", headless="true")[3] == "-s"
    for devices, engine in ((("/dev/null",), "ogre2"), ((), "ogre")):
        monkeypatch.setattr("lam_ros.bringup.GPU_DEVICES", devices)
        assert f"<render_engine>{engine}</render_engine>" in Path(server()[-1]).read_text()
    (tmp_path / "own.sdf").touch()
    own = server(world=str(tmp_path / "own.sdf"), headless="true")
    assert own[3:5] == ["-s", "--headless-rendering"], "it names its own engine, which is ogre2 if it does not"


@pytest.mark.usefixtures("_launch", "gazebo")
def test_without_a_gpu_gazebo_draws_without_the_filter_that_holds_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def filters() -> str | None:
        (command,) = [a for a in started("gazebo", render_engine="ogre") if a.kind == "ExecuteProcess"]
        (process, *_) = gazebo_processes(Options("desk_arm", task="push", gazebo=GazeboOptions(render_engine="ogre")))
        assert command.named["additional_env"] == process.environment
        return process.environment.get("MESA_EXTENSION_OVERRIDE")

    monkeypatch.delenv("MESA_EXTENSION_OVERRIDE", raising=False)
    monkeypatch.setattr("lam_ros.bringup.GPU_DEVICES", ("/dev/null",))
    assert filters() is None
    monkeypatch.setattr("lam_ros.bringup.GPU_DEVICES", ())
    assert filters() == "-GL_EXT_texture_filter_anisotropic"
    monkeypatch.setenv("MESA_EXTENSION_OVERRIDE", "+GL_EXT_something")
    assert filters() is None, "what somebody set, stays"


@pytest.mark.usefixtures("_launch")
def test_a_missing_gazebo_is_one_sentence(gazebo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"Gazebo is not here .no `ign` on the PATH.: install it with"):
        started("gazebo", gz_version="fortress")
    with pytest.raises(RuntimeError, match=r"there is no world none\.sdf"):
        started("gazebo", world="none.sdf")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    with pytest.raises(RuntimeError, match="ros_gz_bridge is not installed"):
        started("gazebo")
    gazebo.unlink()
    with pytest.raises(RuntimeError, match="no `gz` or `ign` on the PATH"):
        started("gazebo")


@pytest.mark.usefixtures("_launch", "gazebo")
def test_ros2_control_moves_gazebos_arm_where_it_is_installed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ros2_control in Gazebo needs gz_ros2_control, controller_manager, "):
        started("gazebo", ros2_control="true")
    for package in ("gz_ros2_control", "controller_manager", "joint_trajectory_controller", "robot_state_publisher"):
        (tmp_path / PACKAGES / package).touch()
    actions = started("gazebo", ros2_control="true", task="push", namespace="left")
    found = nodes(actions)
    assert list(found)[:4] == ["parameter_bridge", "robot_state_publisher", "spawner", "gazebo_node"]
    assert parameters(found["gazebo_node"])["ros2_control"] is True
    assert "<ros2_control" in parameters(found["robot_state_publisher"])["robot_description"]
    assert found["spawner"].named["arguments"][:2] == ["joint_state_broadcaster", "joint_trajectory_controller"]
    (server,) = [action.named["cmd"] for action in actions if action.kind == "ExecuteProcess"]
    assert "gz_ros2_control-system" in Path(server[-1]).read_text()
    (around,) = [action.named["additional_env"] for action in actions if action.kind == "ExecuteProcess"]
    for variable in ("GZ_SIM_SYSTEM_PLUGIN_PATH", "IGN_GAZEBO_SYSTEM_PLUGIN_PATH"):
        assert around[variable].split(":")[0] == f"{tmp_path}/lib"
    assert "joint_state" not in Path(parameters(found["parameter_bridge"])["config_file"]).read_text()
    # The spawner does its work and ends; only when that fails, all ends.
    handlers = [a.given[0].named for a in actions if a.kind == "RegisterEventHandler"]
    (ended,) = [named["on_exit"] for named in handlers if named["target_action"] is found["spawner"]]
    going = SimpleNamespace(is_shutdown=False)
    assert ended(SimpleNamespace(process_name="spawner-3", returncode=0), going) is None
    assert len(ended(SimpleNamespace(process_name="spawner-3", returncode=1), going)) == 1


@pytest.mark.usefixtures("_launch")
def test_view_shows_what_is_installed(installed: set[str]) -> None:
    actions = [action for action in started("view", namespace="left", foxglove="true") if "package" in action.named]
    assert {action.named["package"] for action in actions} == installed
    arm, commanded = [a.named for a in actions if a.named["package"] == "robot_state_publisher"]
    for named in (arm, commanded):
        (parameters,) = named["parameters"]
        assert "<robot" in parameters["robot_description"].given[0]
    assert ("joint_states", "joint_states") in arm["remappings"]
    assert {("joint_states", "lam/command"), ("robot_description", "commanded/robot_description")} < set(
        commanded["remappings"]
    )
    (rviz,) = [a.named for a in actions if a.named["package"] == "rviz2"]
    assert Path(rviz["arguments"][1]).is_file()


@pytest.mark.usefixtures("_launch")
def test_a_driver_that_has_its_own_tf_keeps_it() -> None:
    assert not [a for a in started("view", tf="false", rviz="false") if "package" in a.named]


@pytest.mark.usefixtures("_launch")
def test_view_says_what_is_missing(installed: set[str]) -> None:
    installed.clear()
    actions = started("view", foxglove="true")
    assert not nodes(actions)
    said = [action.named["msg"] for action in actions if action.kind == "LogInfo"]
    assert len(said) == 3
    assert all("is not installed" in text and "apt install ros-" in text for text in said)
