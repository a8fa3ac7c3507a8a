"""The command line. Each command parses, calls the core or the nodes, and shows what came of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from lam_ros.cli.console import DEFAULT_ROBOT, Robot, SimulatorName, console, friendly_errors, print_log, progress
from lam_ros.cli.doctor import doctor_app
from lam_ros.cli.episodes import episodes_app
from lam_ros.cli.improve import improve_app
from lam_ros.cli.learning import TaskName, learning_app
from lam_ros.cli.robot import robot_app
from lam_ros.cli.secure import secure_app
from lam_ros.cli.teleop import teleop_app
from lam_ros.cli.trial import trial_app
from lam_ros.learning.seeds import DISTURBANCE

app = typer.Typer(
    help="Teach a robot arm by showing it: record, train, perform.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(learning_app)
app.add_typer(improve_app)
app.add_typer(trial_app)
app.add_typer(doctor_app)
app.add_typer(secure_app)
app.add_typer(episodes_app, name="episodes")
app.add_typer(robot_app, name="robot")
app.add_typer(teleop_app, name="teleop")
calibrate_app = typer.Typer(help="Measure what the robot YAML must say.", no_args_is_help=True)
app.add_typer(calibrate_app, name="calibrate")


@app.command()
def up(
    what: Annotated[Literal["simulate", "record", "deploy"], typer.Argument(help="What to bring up.")],
    robot: Robot = DEFAULT_ROBOT,
    checkpoint: Annotated[
        str, typer.Option(help="Policy to perform; for record, one that predicts beside the human and moves nothing.")
    ] = "",
    task: Annotated[
        str, typer.Option(help="The simulator's task, reach if not given; on a robot what is shown, in words.")
    ] = "",
    out: Annotated[
        str, typer.Option(help="Folder of episodes; with deploy, of corrections: what a recorder keeps of it.")
    ] = "",
    simulated: Annotated[bool, typer.Option("--simulated", help="The embedded simulator is the robot.")] = False,
    teleop: Annotated[
        Literal["expert", "none"],
        typer.Option(help="Who demonstrates; for a keyboard run `lam node teleop` in another terminal."),
    ] = "none",
    composed: Annotated[bool, typer.Option("--composed", help="Policy and gate in one process.")] = False,
    provider: Annotated[
        Literal["CPU", "CUDA", "TensorRT"], typer.Option(help="What computes the policy; TensorRT an exported one.")
    ] = "CPU",
    simulator: SimulatorName = "embedded",
    respawn: Annotated[
        bool,
        typer.Option("--respawn", help="Start perception, action and recorder again when they die. The gate never is."),
    ] = False,
) -> None:
    """Start the nodes, with prefixed logs; Ctrl-C stops them all, and so does the death of one."""
    from lam_ros.bringup import Options, Supervisor, plan, require_ros

    with friendly_errors():
        require_ros()
        options = Options(
            robot,
            checkpoint,
            task,
            out,
            simulated,
            "realtime",
            teleop,
            composed,
            simulator=simulator,
            provider=provider,
        )
        processes = plan(what, options)
        with Supervisor(print_log) as supervisor:
            supervisor.start(processes)
            try:
                while True:
                    time.sleep(0.1)
                    if respawn:
                        said = supervisor.revive()
                        if said:
                            console.print(f"[bold yellow]{said}[/]")
                    else:
                        supervisor.check()
            except KeyboardInterrupt:
                console.print("stopping")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def node(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="perception, action, gate, recorder, teleop, simulation, gazebo or composed.")
    ],
    robot: Robot = DEFAULT_ROBOT,
    checkpoint: Annotated[str, typer.Option(help="Policy (perception, action, composed).")] = "",
    autostart: Annotated[bool, typer.Option(help="Configure and activate a lifecycle node at once.")] = True,
    sim_time: Annotated[bool, typer.Option("--sim-time", help="Take time from /clock.")] = False,
) -> None:
    """Run one node in this terminal, where there is no `ros2 run`. `-- -p task:=push` passes ROS parameters."""
    from lam_ros.bringup import NODES, Process, node_environment, require_ros
    from lam_ros.errors import BringUpError

    with friendly_errors():
        require_ros()
        if name not in NODES:
            raise BringUpError(f"there is no node {name!r}; there are {', '.join(NODES)}.")
        parameters: dict[str, object] = {"robot": robot, "use_sim_time": sim_time}
        if NODES[name].is_lifecycle or name == "composed":
            parameters["autostart"] = autostart
        if checkpoint:
            parameters["checkpoint"] = str(Path(checkpoint).resolve())
        arguments = Process(NODES[name], parameters).arguments()
        os.environ.update(node_environment())
        sys.stdout.flush()
        os.execv(arguments[0], [*arguments, *context.args])


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="Folder that the episodes go to.")],
    task: Annotated[
        str, typer.Option(help="What is shown, in words; simulated: reach (if not given), push or pick_place.")
    ] = "",
    episodes: Annotated[int, typer.Option(min=1, help="How many the folder shall hold; those there count.")] = 50,
    robot: Robot = DEFAULT_ROBOT,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The scripted expert demonstrates in the embedded simulator.")
    ] = False,
    simulator: SimulatorName = "embedded",
    seed: Annotated[
        int, typer.Option(min=0, help="Simulated: seed of the first episode; each further one counts up.")
    ] = 0,
    disturbance: Annotated[
        float,
        typer.Option(min=0, max=0.2, help="Simulated, embedded: how far (rad) servos err, for the expert to correct."),
    ] = DISTURBANCE,
    countdown: Annotated[float, typer.Option(min=0, help="Seconds before each take.")] = 3.0,
    seconds: Annotated[float, typer.Option(min=0, help="Length of a take: hands-free; 0 means until Enter.")] = 0.0,
    reset: Annotated[float, typer.Option(min=0, help="Hands-free: seconds between takes, to reset the scene.")] = 8.0,
    hook: Annotated[
        str, typer.Option(help="Command to run at each event, which is its last argument: a sound, a light.")
    ] = "",
) -> None:
    """Record demonstrations through the recorder node: on your robot, or with --simulated by the scripted expert.

    On a robot it brings up the gate and the recorder; start your driver, your cameras and your teleoperation (or `lam
    node teleop -- -p source:=keyboard` in another terminal). It shows each topic's rate, announces and counts down each
    take, and keeps, discards, marks or repeats it by keys that work over SSH.
    """
    from lam_ros.cli import steps
    from lam_ros.demonstrations.episode import sealed_folders
    from lam_ros.errors import ConfigError

    with friendly_errors():
        if not simulated:
            from lam_ros.cli.session import Pace, run_session

            if not task:
                raise ConfigError(
                    'say what is shown, in words: --task "fold the towel". (In the simulator: --simulated.)'
                )
            holds = run_session(robot, task, out, Pace(episodes, countdown, seconds, reset), hook)
            console.print(f"{out} holds {holds} episodes; `lam episodes list {out}` shows their verdicts.")
            return
        with progress() as display:
            task = task or "reach"
            bar = display.add_task(f"recording {task}", total=episodes, note="")
            there = len(sealed_folders(out))
            display.update(bar, completed=there)
            log_file = out / "record.log"
            done = steps.record(
                robot, task, episodes, out, seed, log_file, lambda _: display.advance(bar), simulator, disturbance
            )
        console.print(f"{done} episodes recorded; {out} holds {max(episodes, there)}.")


@app.command()
def demo(
    task: TaskName = "reach",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to perform at the end.")] = 50,
    demonstrations: Annotated[int | None, typer.Option(help="Demonstrations to record; each task has its default.")] = (
        None
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of demonstrations, training and evaluation.")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="A smaller run, to see all of it in a few minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the report, summary.json and policy.safetensors.")] = Path(
        "demo"
    ),
    robot: Robot = DEFAULT_ROBOT,
    simulator: SimulatorName = "embedded",
) -> None:
    """The whole loop on real ROS 2 nodes: simulate, record, train, perform, report. Resumes what was interrupted."""
    from lam_ros.cli.demo import run_demo

    with friendly_errors():
        run_demo(robot, task, episodes, demonstrations, seed, fast, out, simulator)


@app.command()
def swap(
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint or exported policy that the running nodes take up.")
    ] = None,
    back: Annotated[bool, typer.Option("--back", help="Go back to the one that ran before, at once.")] = False,
) -> None:
    """Give the running policy another checkpoint: no tick is missed, and --back goes back to the one before."""
    from lam_ros.bringup import node_environment, require_ros
    from lam_ros.cli import steps
    from lam_ros.errors import ConfigError

    with friendly_errors():
        require_ros()
        if (checkpoint is None) != back:
            raise ConfigError("give either --checkpoint FILE or --back.")
        if checkpoint is not None:
            steps.swap(checkpoint)
            console.print(f"perception and action run {checkpoint}; `lam swap --back` undoes it.")
            return
        os.environ.update(node_environment())
        from lam_ros.nodes.conductor import conducting

        with conducting(lambda: None) as conductor:
            console.print(conductor.call("lam/rollback"))


@calibrate_app.command("latency")
def latency_command(
    joint: Annotated[str, typer.Option(help="The joint to move: one that moves much in the pictures.")],
    robot: Robot = DEFAULT_ROBOT,
    amplitude: Annotated[float, typer.Option(min=0.001, help="How far to either side, in the joint's unit.")] = 0.1,
    seconds: Annotated[float, typer.Option(min=6.0, max=120.0, help="How long to move.")] = 15.0,
    simulated: Annotated[bool, typer.Option("--simulated", help="The embedded simulator is the robot.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the arm moves.")] = False,
) -> None:
    """Measure how late cameras show a motion, and how late the arm follows: moves one joint through the gate, slowly.

    Start the robot's driver and cameras before; `lam` starts the gate. Put what it finds into the robot YAML
    (cameras.NAME.latency_s): images, states and commands are then aligned by when the light fell in. The arm's own lag
    needs no entry: it is the same in demonstrations and in use.
    """
    from lam_ros.cli import steps
    from lam_ros.control.latency import Delay

    with friendly_errors():
        if not (simulated or yes):
            typer.confirm(f"{joint} will move by ±{amplitude:g} for {seconds:.0f} s. Is the arm free to?", abort=True)
        with progress() as display:
            bar = display.add_task(f"moving {joint}", total=100, note="")
            found = steps.measure_latency(
                robot, joint, amplitude, seconds, simulated, lambda done: display.update(bar, completed=100 * done)
            )
        table = Table("what", "delay", "explained", "in the robot YAML")
        for name, delay in found.items():
            if isinstance(delay, Delay):
                entry = "-" if name == "command" else f"cameras.{name}.latency_s: {max(0.0, delay.seconds):.3f}"
                what = "the arm after a command" if name == "command" else f"camera {name}"
                table.add_row(what, f"{delay.seconds * 1e3:.0f} ms", f"{delay.explained:.0%}", entry)
            else:
                table.add_row(name, "-", "-", delay)
        console.print(table)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
