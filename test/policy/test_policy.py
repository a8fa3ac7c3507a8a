"""The stateful policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.contract import Features, Observation
from lam_ros.errors import ContractError
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.decoding import ActionDecoder
from lam_ros.policy.policy import Policy
from lam_ros.policy.runtime import TorchRuntime
from test.policy.conftest import SMALL

RNG = np.random.default_rng(0)
SEEN = [
    Observation(
        1000 + tick,
        {name: RNG.integers(0, 256, (96, 96, 3), dtype=np.uint8) for name in ("front", "wrist")},
        RNG.normal(0, 0.2, 7).astype(np.float32),
    )
    for tick in range(5)
]


@pytest.fixture
def policy(make_network: Any, robot: RobotConfig) -> Policy:
    return Policy(TorchRuntime(make_network()), robot.position_limits)


@pytest.mark.parametrize("head", ["regression", "refined", "gmm", "categorical"])
@pytest.mark.parametrize("encoder", ["strided", "article", "resnet18"])
def test_an_action_fits_the_robot(make_network: Any, robot: RobotConfig, head: Any, encoder: Any) -> None:
    config = PolicyConfig(encoder=encoder, head=head, image_size=(64, 64), hidden_size=8, chunk=2)
    action = Policy(TorchRuntime(make_network(config)), robot.position_limits).act(SEEN[0])
    lower, upper = robot.position_limits
    assert action.stamp_ns == 1000
    assert action.target.dtype == np.float32
    assert np.all((action.target >= lower - 1e-6) & (action.target <= upper + 1e-6))


def test_after_reset_an_episode_repeats_exactly(policy: Policy) -> None:
    first = [policy.act(seen).target for seen in SEEN]
    carried_on = policy.act(SEEN[0]).target
    policy.reset()
    again = [policy.act(seen).target for seen in SEEN]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(carried_on, first[0])


def test_perceive_then_act_on_is_act(make_network: Any, robot: RobotConfig) -> None:
    together = Policy(TorchRuntime(make_network()), robot.position_limits)
    apart = Policy(TorchRuntime(make_network()), robot.position_limits)
    for seen in SEEN:
        features = apart.perceive(seen.images, seen.stamp_ns)
        assert features.values.shape == (2, 192)
        np.testing.assert_array_equal(apart.act_on(features, seen.state).target, together.act(seen).target)


def test_its_decoder_is_as_the_configuration_says_and_counts_ticks_by_their_stamps(
    make_network: Any, robot: RobotConfig
) -> None:
    config = replace(SMALL, ensemble_decay=0.7, smoothing=0.3)
    runtime, tick_ns = TorchRuntime(make_network(config)), 50_000_000
    policy, decoder = Policy(runtime, robot.position_limits), ActionDecoder(*robot.position_limits, 0.7, 0.3)
    hidden, features = None, np.ones((2, runtime.features), np.float32)
    # One was lost; then pairs of a clock's ticks share another camera's frame, and time goes on as evenly as before.
    for tick, further in ((0, 1), (1, 1), (3, 2), (3, 1), (5, 1), (5, 1), (7, 1), (8, 1), (10, 2)):
        state = np.full(7, 0.01 * tick, np.float32)
        chunk, hidden = runtime.step(features.reshape(-1), state, hidden)
        answer = policy.act_on(Features(10**18 + tick * tick_ns + 4_000_000, features), state)
        np.testing.assert_allclose(answer.target, decoder.decode(chunk, further), atol=1e-6)


def test_the_order_of_the_images_does_not_matter(policy: Policy) -> None:
    turned = dict(reversed(SEEN[0].images.items()))
    features = policy.perceive(SEEN[0].images, 0).values
    np.testing.assert_array_equal(policy.perceive(turned, 0).values, features)


def test_a_refused_observation_leaves_the_policy_unchanged(make_network: Any, robot: RobotConfig) -> None:
    networks = [make_network(), make_network()]
    for network in networks:
        network.normaliser.state_std.fill_(1e-3)
    policy, untouched = (Policy(TorchRuntime(network), robot.position_limits) for network in networks)
    features = policy.perceive(SEEN[0].images, 0)
    refused = [
        (features, np.full(7, np.nan, np.float32), "the joint state is not finite for waist"),
        (features, np.zeros(6, np.float32), r"the joint state has shape \(6,\)"),
        (Features(0, np.zeros((2, 8), np.float32)), SEEN[0].state, r"features have shape \(2, 8\); .*same checkpoint"),
        (Features(0, features.values * np.nan), SEEN[0].state, "features are not finite; .* Check the cameras"),
        (features, np.full(7, 3e38, np.float32), "the action is not finite"),
    ]
    for values, state, message in refused:
        np.testing.assert_array_equal(
            policy.act_on(features, SEEN[0].state).target, untouched.act_on(features, SEEN[0].state).target
        )
        with pytest.raises(ContractError, match=message):
            policy.act_on(values, state)
    np.testing.assert_array_equal(policy.act(SEEN[1]).target, untouched.act(SEEN[1]).target)


def test_a_chunk_that_is_not_finite_further_on_moves_nothing(make_network: Any, robot: RobotConfig) -> None:
    """What it says of later ticks counts in these, by the ensembling."""
    network = make_network()
    assert network.config.chunk > 1
    network.normaliser.target_scale[-1, 2] = np.nan
    policy = Policy(TorchRuntime(network), robot.position_limits)
    with pytest.raises(ContractError, match="the action is not finite"):
        policy.act(SEEN[0])


def test_images_that_do_not_fit_are_refused(policy: Policy) -> None:
    with pytest.raises(ContractError, match="no image of camera wrist; there are front"):
        policy.perceive({"front": SEEN[0].images["front"]}, 0)
    with pytest.raises(ContractError, match="camera front sent 64x64 uint8; the robot YAML says 96x96"):
        policy.perceive({**SEEN[0].images, "front": np.zeros((64, 64, 3), np.uint8)}, 0)


def test_attention_has_the_policys_image_size(policy: Policy) -> None:
    attention = policy.attention("wrist", SEEN[0].images["wrist"])
    assert attention.shape == (24, 24)
    assert attention.max() == pytest.approx(1.0)
    assert not np.allclose(attention, policy.attention("front", SEEN[0].images["wrist"]))
