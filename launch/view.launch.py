"""What shows a robot, as far as it is installed: its state in tf, RViz, Foxglove's bridge."""

from lam_ros.launching import view_description


def generate_launch_description():
    return view_description()
