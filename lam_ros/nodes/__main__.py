"""`python -m lam_ros.nodes NAME --ros-args …` runs one process of the node table."""

import sys

from lam_ros.nodes.main import start

if __name__ == "__main__":
    raise SystemExit(start(sys.argv[1], sys.argv))
