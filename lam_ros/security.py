"""Who may say what on the robot's network: a keystore as SROS2 lays it out, with DDS security's signed permissions.

A certificate authority vouches for each node's name; a signed file says which topics that name may publish and hear. A
participant without a certificate does not join at all, and one whose permissions do not name a topic can neither write
nor read it, as far as the middleware was built with DDS security. Layout and file names are those of the ROS 2 design
article "ROS 2 DDS Security Integration", the XML that of OMG DDS Security 1.1.
"""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from lam_ros.bringup import LIFECYCLE_NODES
from lam_ros.config import RobotConfig
from lam_ros.contract import absolute_topic
from lam_ros.errors import ConfigError

YEARS = 10
COMMON_NAME = "lam_ros certificate authority"
ENCLAVE = re.compile(r"[a-z][a-z0-9_]*")
# Every node's own. Named one by one, so that a driver whose node's name is not known may serve these and no others.
OWN_SERVICES = (
    *("describe_parameters", "get_parameters", "get_parameter_types", "list_parameters", "set_parameters"),
    *("set_parameters_atomically", "get_type_description", "get_logger_levels", "set_logger_levels"),
    *("change_state", "get_state", "get_available_states", "get_available_transitions", "get_transition_graph"),
)
RECORDER = ("start", "stop", "discard", "again", "mark_success", "mark_failure", "preflight")


@dataclass(frozen=True)
class Policy:
    """What an enclave may do, by ROS names relative to the robot's namespace, or absolute; ``*`` stands for any part.

    Attributes:
        nodes: names of the nodes that live in it.
        publishes, hears: topics.
        serves, calls: services.
    """

    nodes: tuple[str, ...]
    publishes: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    def __or__(self, other: Policy) -> Policy:
        return Policy(
            self.nodes + other.nodes,
            self.publishes + other.publishes,
            self.hears + other.hears,
            self.serves + other.serves,
            self.calls + other.calls,
        )


def policies(robot: RobotConfig) -> dict[str, Policy]:
    """Enclave -> what it may do. Only the gate commands the robot; only ``operator`` releases the emergency stop."""
    cameras = tuple(camera.subscribed_topic for camera in robot.cameras.values())
    infos = tuple(f"{camera.topic.rpartition('/')[0]}/camera_info" for camera in robot.cameras.values())
    states, teleop = robot.joint_states.topic, robot.teleop
    devices = tuple(one.topic for one in (teleop.joy, teleop.leader, teleop.twist) if one is not None)
    buttons = (robot.recorder.buttons.topic,) if robot.recorder.buttons.actions else ()
    recorder = tuple(f"recorder/{action}" for action in RECORDER)
    perception = Policy(("perception",), ("lam/features", "lam/explain/*"), cameras, ("lam/rollback",))
    action = Policy(
        ("action",),
        ("lam/policy_command", "lam/shadow"),
        ("lam/features", states, "lam/takeover", "lam/command"),
    )
    gate = Policy(
        ("gate",),
        ("lam/command", robot.command.topic),
        (states, "lam/policy_command", "teleop/command", "lam/takeover", "lam/estop"),
        ("lam/estop_now", "lam/reset_estop", "lam/resume"),
        (f"{robot.command.topic.rpartition('/')[0]}/get_parameters",),  # the order of its controller's joints
    )
    return {
        "perception": perception,
        "action": action,
        "gate": gate,
        "composed": gate | action | perception,
        "recorder": Policy(("recorder", "recorder_intake"), ("recorder/event",), ("/*", *buttons), recorder),
        "teleop": Policy(
            ("teleop",), ("teleop/command", "lam/takeover"), (states, "lam/command", *devices), calls=recorder
        ),
        "driver": Policy(
            ("*",), (states, *cameras, *infos, *devices, *buttons, "/tf", "/tf_static"), (robot.command.topic,)
        ),
        # People: `ros2 topic echo`, `lam doctor`, the services, a stop. Nothing that moves the arm.
        "operator": Policy(
            ("*",),
            ("lam/estop", "recorder/event"),
            ("/*",),
            calls=("lam/*", *recorder, *(f"{node}/*" for node in LIFECYCLE_NODES), "teleop/*"),
        ),
    }


def dds_topics(policy: Policy, namespace: str = "") -> tuple[list[str], list[str]]:
    """Which DDS topics a policy means: those written, and those read.

    ROS 2 calls a topic ``rt/name`` there, a service ``rq/nameRequest`` and ``rr/nameReply`` (ROS 2 design article
    "Topic and Service name mapping to DDS").
    """

    def absolute(name: str) -> str:
        return absolute_topic(name, namespace)

    serves = [*policy.serves, *(f"{node}/{service}" for node in policy.nodes for service in OWN_SERVICES)]
    always = ("/rosout", "/parameter_events", "/diagnostics")
    writes = [f"rt{absolute(name)}" for name in (*policy.publishes, *always)]
    writes += [f"rr{absolute(name)}Reply" for name in serves] + [f"rq{absolute(name)}Request" for name in policy.calls]
    writes += [f"rt{absolute(node)}/transition_event" for node in policy.nodes]
    reads = [f"rt{absolute(name)}" for name in (*policy.hears, "/clock", "/parameter_events", "/diagnostics")]
    reads += [f"rq{absolute(name)}Request" for name in serves] + [f"rr{absolute(name)}Reply" for name in policy.calls]
    discovery = ["ros_discovery_info"]
    return sorted({*writes, *discovery}), sorted({*reads, *discovery})


GOVERNANCE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xsi:noNamespaceSchemaLocation="http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_governance.xsd">
  <domain_access_rules>
    <domain_rule>
      <domains>{domains}</domains>
      <allow_unauthenticated_participants>false</allow_unauthenticated_participants>
      <enable_join_access_control>true</enable_join_access_control>
      <discovery_protection_kind>ENCRYPT</discovery_protection_kind>
      <liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>
      <rtps_protection_kind>SIGN</rtps_protection_kind>
      <topic_access_rules>
        <topic_rule>
          <topic_expression>*</topic_expression>
          <enable_discovery_protection>true</enable_discovery_protection>
          <enable_liveliness_protection>true</enable_liveliness_protection>
          <enable_read_access_control>true</enable_read_access_control>
          <enable_write_access_control>true</enable_write_access_control>
          <metadata_protection_kind>{protection}</metadata_protection_kind>
          <data_protection_kind>{protection}</data_protection_kind>
        </topic_rule>
      </topic_access_rules>
    </domain_rule>
  </domain_access_rules>
</dds>
"""

PERMISSIONS = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xsi:noNamespaceSchemaLocation="http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_permissions.xsd">
  <permissions>
    <grant name="{name}">
      <subject_name>CN={name}</subject_name>
      <validity>
        <not_before>{begins}</not_before>
        <not_after>{ends}</not_after>
      </validity>
      <allow_rule>
        <domains>{domains}</domains>
        <publish>
          <topics>
{writes}
          </topics>
        </publish>
        <subscribe>
          <topics>
{reads}
          </topics>
        </subscribe>
      </allow_rule>
      <default>DENY</default>
    </grant>
  </permissions>
</dds>
"""
EVERY_DOMAIN = "<id_range><min>0</min><max>230</max></id_range>"


class Keystore:
    """A folder of keys and signed files; made where it is not there, taken up where it is.

    Args:
        folder: of the keystore, what ROS_SECURITY_KEYSTORE names.
        domain: the only DDS domain it is good for; any where it is None.
        encrypted: topics are encrypted, not only signed; pictures cost time.

    Raises:
        ConfigError: the cryptography package is missing, or the folder holds something else.
    """

    def __init__(self, folder: Path, domain: int | None = None, encrypted: bool = False) -> None:
        try:
            from cryptography.hazmat.primitives import serialization
        except ImportError:
            raise ConfigError("keys need the cryptography package: pip install 'lam_ros[secure]'.") from None
        self._folder = folder
        self._domains = EVERY_DOMAIN if domain is None else f"<id>{domain}</id>"
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        self._begins, self._ends = now - datetime.timedelta(days=1), now + datetime.timedelta(days=365 * YEARS)
        key_file, certificate_file = folder / "private" / "ca.key.pem", folder / "public" / "ca.cert.pem"
        is_whole = key_file.is_file() and certificate_file.is_file()
        if not is_whole and folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is there, and is no whole keystore; give another folder, or empty it.")
        if is_whole:
            from cryptography import x509

            try:
                self._key: Any = serialization.load_pem_private_key(key_file.read_bytes(), None)
                self._certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            except (OSError, ValueError) as error:
                raise ConfigError(f"the authority of {folder} cannot be read: {error}. Begin a new keystore.") from None
        else:
            self._make_authority(key_file, certificate_file)
        governance = GOVERNANCE.format(domains=self._domains, protection="ENCRYPT" if encrypted else "SIGN")
        (folder / "enclaves").mkdir(exist_ok=True)
        self._sign(governance, folder / "enclaves" / "governance")

    def add(self, name: str, writes: list[str], reads: list[str]) -> Path:
        """Give an enclave its key, its certificate and its permissions, in place of those it may have had.

        Args:
            name: of the enclave, without a slash.
            writes, reads: DDS topics.

        Returns:
            Its folder.
        """
        from cryptography.hazmat.primitives.asymmetric import ec

        if not ENCLAVE.fullmatch(name):
            raise ConfigError(f"{name!r} cannot be an enclave; use small letters, digits and underscores.")
        folder = self._folder / "enclaves" / name
        folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(folder / "key.pem", key)
        _write(folder / "cert.pem", _certificate_bytes(self._issue(f"/{name}", key, is_authority=False)))
        shared = {"identity_ca.cert.pem": "public/ca.cert.pem", "permissions_ca.cert.pem": "public/ca.cert.pem"}
        for link, file in {**shared, "governance.p7s": "enclaves/governance.p7s"}.items():
            (folder / link).unlink(missing_ok=True)
            (folder / link).symlink_to(Path("../..") / file)
        dated = {"begins": self._begins, "ends": self._ends}
        permissions = PERMISSIONS.format(
            name=f"/{name}",
            domains=self._domains,
            writes=_topic_lines(writes),
            reads=_topic_lines(reads),
            **{word: when.strftime("%Y-%m-%dT%H:%M:%S") for word, when in dated.items()},
        )
        self._sign(permissions, folder / "permissions")
        return folder

    def _make_authority(self, key_file: Path, certificate_file: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder.mkdir(parents=True, exist_ok=True)
        key_file.parent.mkdir(mode=0o700)
        certificate_file.parent.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._issue(COMMON_NAME, self._key, is_authority=True)
        _write_key(key_file, self._key)
        _write(certificate_file, _certificate_bytes(self._certificate))
        for use in ("identity", "permissions"):
            (certificate_file.parent / f"{use}_ca.cert.pem").symlink_to("ca.cert.pem")
            (key_file.parent / f"{use}_ca.key.pem").symlink_to("ca.key.pem")

    def _issue(self, name: str, key: Any, is_authority: bool) -> Any:
        """A certificate of the authority for a name (CN) and a key."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        def called(common_name: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])

        constraints = x509.BasicConstraints(ca=is_authority, path_length=1 if is_authority else None)
        return (
            x509.CertificateBuilder()
            .subject_name(called(name))
            .issuer_name(called(COMMON_NAME))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._begins)
            .not_valid_after(self._ends)
            .add_extension(constraints, critical=is_authority)
            .sign(self._key, hashes.SHA256())
        )

    def _sign(self, document: str, file: Path) -> None:
        """Write a document as .xml, and signed (S/MIME, detached, as DDS security reads it) as .p7s."""
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.serialization import pkcs7

        ElementTree.fromstring(document)  # a name with an angle bracket must not get this far
        signer = pkcs7.PKCS7SignatureBuilder().set_data(document.encode())
        signer = signer.add_signer(self._certificate, self._key, hashes.SHA256())
        options = [pkcs7.PKCS7Options.Text, pkcs7.PKCS7Options.DetachedSignature]
        _write(file.with_suffix(".xml"), document.encode())
        _write(file.with_suffix(".p7s"), signer.sign(serialization.Encoding.SMIME, options))


def _topic_lines(topics: list[str]) -> str:
    return "\n".join(f"            <topic>{escape(topic)}</topic>" for topic in topics)


def _certificate_bytes(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(file: Path, key: Any) -> None:
    """For its owner's eyes alone, from the first byte on."""
    from cryptography.hazmat.primitives import serialization

    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(file, encoded, mode=0o600)


def _write(file: Path, content: bytes, mode: int = 0o644) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
        opened.write(content)
    partial.replace(file)


def make_keystore(robot: RobotConfig, folder: Path, namespace: str, domain: int | None, encrypted: bool) -> list[str]:
    """Keys and permissions for everything that takes part in teaching this robot; the names of the enclaves.

    Raises:
        ConfigError: see ``Keystore``.
    """
    keystore = Keystore(folder, domain, encrypted)
    allowed = policies(robot)
    for name, policy in allowed.items():
        keystore.add(name, *dds_topics(policy, namespace))
    return list(allowed)
