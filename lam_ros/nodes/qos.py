"""QoS profiles, chosen by what a late or lost message would mean."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

# Sensors may come from best-effort drivers, and only the newest counts.
SENSOR = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
# Of frames that each cost the CNN's time: what came meanwhile replaces what waits.
NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Our own image and feature streams: reliable, so that a simulator may wait for the answer to each frame.
STREAM = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
# Commands: reliable and newest first in importance; an old command is worse than none.
COMMAND = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
# What a latecomer must still hear: e-stop, takeover, the simulator's state.
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# One subscription with each hears every publisher, some of them twice.
ANY = (LATCHED, STREAM, SENSOR)
