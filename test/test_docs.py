"""What is written of lam_ros: links lead somewhere, and the reference is what the code says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lam_ros.bringup import NODES
from lam_ros.share import share_path

ROOT = share_path("package.xml").parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_on_the_site() -> None:
    named = set(re.findall(r"([\w-]+\.md)", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_commands_are_described_as_they_are() -> None:
    command = [sys.executable, "-m", "typer", "lam_ros.cli.main", "utils", "docs", "--name", "lam", "--title", "lam"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (ROOT / "docs/commands.md").read_text().strip(), "run `make reference`"


def read_off_the_nodes() -> str:
    """What `make reference` writes; empty where it hangs, as one run in some forty did, which then shows where."""
    command = [sys.executable, "-X", "faulthandler", "-m", "lam_ros.nodes.reference"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        described, said = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        print(process.communicate()[1], file=sys.stderr)
        return ""
    assert process.returncode == 0, said
    return described


@pytest.mark.timeout(240)
def test_the_nodes_are_described_as_they_are(domain: int) -> None:
    described = read_off_the_nodes() or read_off_the_nodes()
    assert described == (ROOT / "docs/nodes.md").read_text(), "run `make reference`"
    for spec in NODES.values():
        assert f"## {spec.executable}" in described
    for row in (
        "| records | `camera/front/image_raw` | sensor_msgs/msg/Image |",  # which it subscribes to once it is published
        "| listens to (twist) | `teleop/twist` | geometry_msgs/msg/TwistStamped |",
    ):
        assert row in described
