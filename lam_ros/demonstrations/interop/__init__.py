"""Demonstrations from and for other tools: rosbag2, LeRobot, robomimic."""
