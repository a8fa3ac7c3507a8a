# make setup: a virtual environment with everything, ROS 2 included; make demo, make test: do their own set-up first.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.set-up
OUT ?= demo
DEBIAN := libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 libglib2.0-0
# Gazebo's own parser of worlds, ROS' of URDFs, and a DDS with security.
OTHERS := ignition-tools libsdformat-dev liburdfdom-tools cyclonedds-tools

.PHONY: setup demo test lint reference docs clean

setup: $(STAMP)

$(STAMP): setup.py constraints.txt
	@sh .ci/debian-packages $(DEBIAN)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[ros,sim,train,interop,anonymise,view,onnx,secure,dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/lam demo --out $(OUT)

test: $(STAMP)
	@sh .ci/debian-packages $(OTHERS) || echo "Without them the tests by Gazebo's own parser and by DDS security are skipped." >&2
	$(VENV)/bin/python -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# What docs/ says of nodes and commands, read off them.
reference: $(STAMP)
	ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(VENV)/bin/python -m lam_ros.nodes.reference > docs/nodes.md
	$(VENV)/bin/typer lam_ros.cli.main utils docs --name lam --title lam --output docs/commands.md

docs: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet --site-dir build/site

clean:
	rm -rf $(VENV) build *.egg-info
