"""The ROS 2 nodes: each converts, calls the core, converts back and publishes. Only this folder imports rclpy."""
