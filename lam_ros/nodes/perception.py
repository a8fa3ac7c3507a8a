"""perception_node: camera frames in, CNN features out, one Features message a tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from lam_ros.contract import Features, seconds_to_ns
from lam_ros.demonstrations.alignment import Tick, TickAssembler
from lam_ros.errors import LamError
from lam_ros.images import CompressedView, ImageView
from lam_ros.nodes.base import ERROR, OK, SILENCE_S, WARN
from lam_ros.nodes.images import features_message, image_message, to_rgb, view
from lam_ros.nodes.policy import Loaded, PolicyNode
from lam_ros.nodes.qos import NEWEST, STREAM
from lam_ros.nodes.seeing import Found, Frame, Helpers, Seen
from lam_ros.policy.explain import draw_attention
from lam_ros.policy.policy import Policy

UNHEARD = "where `ros2 topic hz` hears nothing either, start that driver again (docs/first-robot.md: Nothing arrives)."
SILENCE_TICKS = 5  # a camera that has sent nothing for so long, or SILENCE_S where that is longer, is named


def look(policy: Policy, camera: str, frame: ImageView | CompressedView) -> Found:
    """Run the CNN on a frame; an ImageError or ContractError where it does not fit."""
    try:
        image = to_rgb(frame)
        return Seen(image, policy.perceive_camera(camera, image))
    except LamError as error:
        return error


class PerceptionNode(PolicyNode):
    """Event driven: the frame that completes a tick is the one whose callback publishes it. Those before it are looked
    at by other threads as they arrive."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("perception", **kwargs)
        self.hand_over: Callable[[Features, str], None] | None = None  # to an action node in the same process
        self._helpers = Helpers(0)

    def configure(self) -> None:
        self._now: Loaded | None = None
        self._before: Loaded | None = None
        self.load_policy()
        self._begin_anew()
        self._helpers = Helpers(len(self.robot.cameras) - 1)
        self._published = 0
        self._refused = 0
        self._features = self.create_publisher(Image, "lam/features", STREAM)
        self._explanations = {
            camera: self.create_publisher(Image, f"lam/explain/{camera}", STREAM) for camera in self.robot.cameras
        }
        self._subscriptions_made = [
            self.create_subscription(
                Image if camera.transport == "raw" else CompressedImage,
                camera.subscribed_topic,
                partial(self._on_frame, name),
                NEWEST,
                raw=True,
            )
            for name, camera in self.robot.cameras.items()
        ]
        self._rollback = self.create_service(Trigger, "lam/rollback", self._on_rollback)
        for camera in self.robot.cameras.values():
            self.need_publisher(camera.subscribed_topic)
        self.need_subscriber(self._features)
        self.figure("features published", lambda: self._published)
        self.figure("frames dropped on purpose", lambda: self._assembler.dropped)
        self.figure("frames refused", lambda: self._refused)

    def start(self) -> None:
        self._begin_anew()
        self._silence_ns = seconds_to_ns(max(SILENCE_S, SILENCE_TICKS / self.robot.policy.rate_hz))
        self._arrived_ns = dict.fromkeys(self.robot.cameras, self.now_ns())

    def _begin_anew(self) -> None:
        self._assembler = TickAssembler(self.robot)
        self._ahead: dict[str, Frame] = {}  # each camera's last that was looked at before its tick was complete

    def run_with(self, loaded: Loaded) -> None:
        self._before, self._now = self._now, loaded
        super().run_with(loaded)

    def adopt(self, loaded: Loaded) -> None:
        self.run_with(loaded)
        self._begin_anew()  # a frame that was seen by the policy before belongs to no tick

    def _on_rollback(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._before is None:
            response.message = "no other checkpoint has run before; there is nothing to go back to."
            return response
        self.forget_what_loads()
        self.adopt(self._before)
        self.tell_file()
        response.success, response.message = True, f"{self._file} runs again."
        return response

    def _on_frame(self, camera: str, serialized: bytes) -> None:
        if not self.is_active:
            return
        self._arrived_ns[camera] = self.now_ns()
        before = self._ahead.pop(camera, None)
        if before is not None and before.error is not None:  # which no tick has asked for
            self._refuse(before.error)
        try:
            frame = view(serialized, self.robot.cameras[camera].transport == "compressed")
            is_due = self._assembler.is_due(camera, frame.stamp_ns)
            given = Frame(partial(look, self._policy, camera, frame))
            tick = self._assembler.push(camera, frame.stamp_ns, given)
            if tick is None and is_due:
                self._helpers.begin(given)
                self._ahead[camera] = given
            while tick is not None:
                tick = self._see(tick)
        except LamError as error:
            self._refuse(error)

    def _see(self, tick: Tick) -> Tick | None:
        """Publish a tick, or give back the one that there is without the frames that cannot be read."""
        found = self._helpers.see(tick.images)
        unreadable = {camera: error for camera, error in found.items() if not isinstance(error, Seen)}
        if not unreadable:
            self._publish(replace(tick, images=found))
            return None
        for camera, error in unreadable.items():
            self._ahead.pop(camera, None)
            self._refuse(error)
        return self._assembler.without([tick.images[camera] for camera in unreadable])

    def _refuse(self, error: LamError) -> None:
        self._refused += 1
        self.note("frames", ERROR, str(error))

    def _publish(self, tick: Tick) -> None:
        """The features of a tick, whose images are ``Seen``."""
        features = np.stack([seen.features for seen in tick.images.values()])
        if not np.isfinite(features).all():
            self.note("features", ERROR, "the CNN gives values that are not finite; train the checkpoint again.")
            return
        if self.hand_over is not None:
            self.hand_over(Features(tick.stamp_ns, features), self._digest)
        self._features.publish(features_message(features, tick.stamp_ns, self._digest))
        self._published += 1
        self.note("frames", OK, "every camera delivers")
        for camera, publisher in self._explanations.items():
            if publisher.get_subscription_count():
                image = tick.images[camera].image
                drawn = draw_attention(image, self._policy.attention(camera, image))
                publisher.publish(image_message(drawn, tick.stamp_ns, self.robot.cameras[camera].frame_id))

    def _report(self) -> None:
        if self.is_active and not self.parameter("use_sim_time"):  # a simulator's cameras may rest
            self._look_at_cameras()
        super()._report()

    def _look_at_cameras(self) -> None:
        """Name the cameras that are not heard, and what to do where somebody publishes them."""
        overdue_ns = self.now_ns() - self._silence_ns
        topics = {name: self.resolve_topic_name(c.subscribed_topic) for name, c in self.robot.cameras.items()}
        silent = [topics[name] for name, at_ns in self._arrived_ns.items() if at_ns < overdue_ns]
        unheard = [topic for topic in silent if self.count_publishers(topic)]
        if unheard:
            where = ", ".join(unheard)
            self.note("cameras", WARN, f"nothing arrives from {where}, though it is published; {UNHEARD}")
        elif silent:
            self.note("cameras", WARN, f"nothing arrives from {', '.join(silent)}")
        else:
            self.note("cameras", OK, "every camera is heard")

    def close(self) -> None:
        self._helpers.close()
        super().close()

    def _forget(self) -> None:
        self._helpers.close()
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for publisher in (self._features, *self._explanations.values()):
            self.destroy_publisher(publisher)
        self.destroy_service(self._rollback)
