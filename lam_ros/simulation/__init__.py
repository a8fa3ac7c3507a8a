"""The embedded simulator: one arm on a table, three tasks, and experts that show how to do them. No ROS here."""
