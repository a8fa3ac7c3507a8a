"""lam_ros: teach a robot arm by showing it. Only `lam_ros.nodes` needs ROS 2; everything else is ordinary Python."""

__version__ = "0.1.0"
