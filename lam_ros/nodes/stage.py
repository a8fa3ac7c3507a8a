"""What a simulator of either kind says of its task: where the objects lie, and how the episode goes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from lam_ros.nodes.base import ns_to_stamp
from lam_ros.simulation.simulation import Pose as ObjectPose


def objects_message(objects: Mapping[str, ObjectPose], seed: int, stamp_ns: int) -> MarkerArray:
    """Poses of the task's objects, for experts and RViz. A marker's id is the episode's seed."""
    markers = []
    for name, pose in objects.items():
        marker = Marker(ns=name, id=seed, type=Marker.CUBE, scale=Vector3(x=0.04, y=0.04, z=0.04))
        marker.header.frame_id = "base_link"
        marker.header.stamp = ns_to_stamp(stamp_ns)
        x, y, z = (float(value) for value in pose.position)
        turn = Quaternion(z=float(np.sin(pose.yaw / 2)), w=float(np.cos(pose.yaw / 2)))
        marker.pose = Pose(position=Point(x=x, y=y, z=z), orientation=turn)
        marker.color = ColorRGBA(r=0.9, g=0.3, b=0.3, a=0.5)
        markers.append(marker)
    return MarkerArray(markers=markers)


def status_message(outcome: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """``simulation/status``: idle, running, success or failure, and figures of the episode."""
    level = DiagnosticStatus.OK if outcome != "failure" else DiagnosticStatus.WARN
    status = DiagnosticStatus(level=level, name="simulation", message=outcome)
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return status
