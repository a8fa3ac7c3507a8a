"""Keys and permissions: as OpenSSL and another DDS' security see them, and complete for the nodes there are."""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lam_ros import security
from lam_ros.bringup import NODES, SECURED, enclave_arguments
from lam_ros.config import RobotConfig
from lam_ros.errors import ConfigError
from lam_ros.security import Keystore, dds_topics, make_keystore, policies

PLUGINS = next(Path("/usr/lib").glob("*/libddsc0*/"), None)
DDSPERF = shutil.which("ddsperf")


@pytest.fixture
def keystore(tmp_path: Path, robot: RobotConfig) -> Path:
    make_keystore(robot, tmp_path / "keys", "", None, encrypted=False)
    return tmp_path / "keys"


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("enclave", ["gate", "teleop", "operator", "composed"])
def test_an_authority_vouches_for_each_name_and_signs_what_it_may_do(keystore: Path, enclave: str) -> None:
    folder = keystore / "enclaves" / enclave
    authority = str(folder / "identity_ca.cert.pem")
    assert "OK" in openssl("verify", "-CAfile", authority, str(folder / "cert.pem"))
    assert f"/{enclave}" in openssl("x509", "-in", str(folder / "cert.pem"), "-noout", "-subject")
    for document in ("governance", "permissions"):
        signed = str(folder / f"{document}.p7s")
        shown = openssl("smime", "-verify", "-in", signed, "-CAfile", authority, "-purpose", "any")
        assert "<dds" in shown


def test_private_keys_are_for_their_owner_alone(keystore: Path) -> None:
    keys = [file for file in keystore.rglob("*key.pem") if not file.is_symlink()]
    assert len(keys) == 1 + len(list((keystore / "enclaves").glob("*/cert.pem")))
    assert {stat.S_IMODE(file.stat().st_mode) for file in keys} == {0o600}
    assert stat.S_IMODE((keystore / "private").stat().st_mode) == 0o700


def may_write(robot: RobotConfig, topic: str) -> set[str]:
    return {
        name
        for name, policy in policies(robot).items()
        if any(fnmatch.fnmatchcase(topic, allowed) for allowed in dds_topics(policy)[0])
    }


def test_only_the_gate_commands_and_only_the_operator_releases_the_stop(robot: RobotConfig) -> None:
    assert may_write(robot, "rt/robot/command") == {"gate", "composed"}
    assert may_write(robot, "rt/lam/command") == {"gate", "composed"}
    assert may_write(robot, "rt/teleop/command") == {"teleop"}
    assert may_write(robot, "rt/lam/policy_command") == {"action", "composed"}
    assert may_write(robot, "rq/lam/reset_estopRequest") == {"operator"}
    assert may_write(robot, "rr/lam/reset_estopReply") == {"gate", "composed"}
    assert may_write(robot, "rt/joint_states") == {"driver"}
    assert may_write(robot, "rr/my_driver/get_parametersReply") == {"driver", "operator"}


def test_names_go_into_the_robots_namespace(robot: RobotConfig) -> None:
    writes, reads = dds_topics(policies(robot)["gate"], "left")
    assert "rt/left/robot/command" in writes
    assert "rt/left/lam/estop" in reads
    assert "rt/rosout" in writes
    assert "rq/left/gate/change_stateRequest" in reads


def test_new_keys_come_from_the_old_authority(keystore: Path, robot: RobotConfig) -> None:
    authority = (keystore / "public/ca.cert.pem").read_bytes()
    key = (keystore / "enclaves/gate/key.pem").read_bytes()
    make_keystore(robot, keystore, "", 7, encrypted=True)
    assert (keystore / "public/ca.cert.pem").read_bytes() == authority
    assert (keystore / "enclaves/gate/key.pem").read_bytes() != key
    assert "<id>7</id>" in (keystore / "enclaves/gate/permissions.xml").read_text()
    assert "ENCRYPT</data_protection_kind>" in (keystore / "enclaves/governance.xml").read_text()


def test_what_is_no_keystore_is_left_alone(tmp_path: Path, keystore: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(ConfigError, match="photos is there, and is no whole keystore"):
        Keystore(tmp_path / "photos")
    (keystore / "private/ca.key.pem").write_text("garbage")
    with pytest.raises(ConfigError, match=r"authority of .* cannot be read"):
        Keystore(keystore)
    with pytest.raises(ConfigError, match="cannot be an enclave"):
        Keystore(tmp_path / "new").add("../../etc", [], [])


def test_nodes_are_told_their_enclave_where_security_is_on(monkeypatch: pytest.MonkeyPatch, robot: RobotConfig) -> None:
    monkeypatch.delenv("ROS_SECURITY_ENABLE", raising=False)
    assert enclave_arguments(NODES["gate"]) == []
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    assert enclave_arguments(NODES["gate"]) == ["--enclave", "/gate"]
    assert enclave_arguments(NODES["simulation"]) == ["--enclave", "/driver"]
    assert set(SECURED) < set(policies(robot))


def test_a_node_without_security_says_so_in_a_sentence(keystore: Path, domain: int) -> None:
    """Where the middleware has it, the gate starts; here it must not start without what was asked for."""
    pytest.importorskip("rclpy")
    wanted = {"ROS_SECURITY_KEYSTORE": str(keystore), "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}
    command = [sys.executable, "-m", "lam_ros.cli.main", "node", "gate"]
    process = subprocess.Popen(command, env={**os.environ, **wanted}, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it has security, and runs
        assert process.wait(30) == 0
        return
    assert process.returncode == 1
    assert "\nROS_SECURITY_ENABLE is true, and this node gets no security" in said
    assert "Traceback" not in said


# Cyclone DDS' own tool, under the same standard: the wheels' Fast DDS was built without security.


def cyclone(enclave: Path | None) -> str:
    """CYCLONEDDS_URI of a participant with these keys."""
    plugins = {"auth": "authentication", "ac": "access_control", "crypto": "crypto"}
    library = {
        short: f'<Library path="{PLUGINS}/libdds_security_{short}.so" initFunction="init_{name}" '
        f'finalizeFunction="finalize_{name}"/>'
        for short, name in plugins.items()
    }
    keys = (
        f"<Security><Authentication>{library['auth']}<IdentityCA>file:{enclave}/identity_ca.cert.pem</IdentityCA>"
        f"<IdentityCertificate>file:{enclave}/cert.pem</IdentityCertificate>"
        f"<PrivateKey>file:{enclave}/key.pem</PrivateKey></Authentication>"
        f"<AccessControl>{library['ac']}<PermissionsCA>file:{enclave}/permissions_ca.cert.pem</PermissionsCA>"
        f"<Governance>file:{enclave}/governance.p7s</Governance>"
        f"<Permissions>file:{enclave}/permissions.p7s</Permissions></AccessControl>"
        f"<Cryptographic>{library['crypto']}</Cryptographic></Security>"
    )
    network = '<General><Interfaces><NetworkInterface name="lo" multicast="true"/></Interfaces></General>'
    return f'<CycloneDDS><Domain id="any">{network}{keys if enclave else ""}</Domain></CycloneDDS>'


def received(listener: Path, speaker: Path | None, domain: int) -> int:
    """How many messages of one participant reach the other in some seconds."""

    def start(enclave: Path | None, *words: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "CYCLONEDDS_URI": cyclone(enclave)}
        command = [str(DDSPERF), "-i", str(domain), *words]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    hears, speaks = start(listener, "-D", "6", "sub"), start(speaker, "-D", "5", "pub", "100Hz")
    heard, _ = hears.communicate(timeout=60)
    speaks.communicate(timeout=60)
    totals = [int(line.split(" total ")[1].split()[0]) for line in heard.splitlines() if " total " in line]
    return max(totals, default=0)


@pytest.mark.skipif(not DDSPERF or not PLUGINS, reason="cyclonedds-tools, which `make test` installs, is not here")
def test_a_stranger_is_not_heard(tmp_path: Path, domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # ddsperf speaks in partitions, which ROS does not.
    partitions = "</topics><partitions><partition>*</partition></partitions>"
    monkeypatch.setattr(security, "PERMISSIONS", security.PERMISSIONS.replace("</topics>", partitions))
    ours, theirs = Keystore(tmp_path / "ours"), Keystore(tmp_path / "theirs")
    everything = ["DDSPerf*"]
    listener = ours.add("listener", everything, everything)
    assert received(listener, ours.add("speaker", everything, everything), domain) > 50
    assert received(listener, ours.add("mute", ["DDSPerfRP*", "DDSPerfCPU*"], everything), domain) == 0
    assert received(listener, theirs.add("speaker", everything, everything), domain) == 0
    assert received(listener, None, domain) == 0
