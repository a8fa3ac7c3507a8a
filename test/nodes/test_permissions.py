"""Each node may do what it does, and needs no more: its topics and services against the permissions of `lam secure`."""

from __future__ import annotations

import fnmatch

import pytest

from lam_ros.config import load_robot
from lam_ros.nodes.reference import configured, untrained_checkpoint
from lam_ros.security import dds_topics, policies


@pytest.mark.parametrize("name", ["perception", "action", "gate", "recorder", "teleop"])
def test_a_node_may_do_what_it_does(graph, tmp_path, name):
    untrained_checkpoint(tmp_path / "policy.safetensors")
    writes, reads = dds_topics(policies(load_robot("desk_arm"))[name])

    def may(topic, allowed):
        return any(fnmatch.fnmatchcase(topic, pattern) for pattern in allowed)

    with configured(name, graph.context, tmp_path) as node:
        topics = {f"rt{publisher.topic_name}" for publisher in node.publishers}
        topics |= {f"rr{service.service_name}Reply" for service in node.services}
        topics |= {f"rq{client.service_name}Request" for client in node.clients}
        heard = {f"rt{subscription.topic_name}" for subscription in node.subscriptions}
        heard |= {f"rq{service.service_name}Request" for service in node.services}
        heard |= {f"rr{client.service_name}Reply" for client in node.clients}
    # The scripted expert lives in the simulator, where nobody needs keys.
    heard -= {"rt/simulation/objects"}
    assert not [topic for topic in topics if not may(topic, writes)]
    assert not [topic for topic in heard if not may(topic, reads)]
    if name in ("perception", "action", "gate"):  # the others depend on what drives, and on what is recorded
        policy, named = policies(load_robot("desk_arm"))[name], topics | heard
        granted = [topic for topic in (*policy.publishes, *policy.hears) if "*" not in topic]
        assert not [topic for topic in granted if f"rt/{topic.lstrip('/')}" not in named]
