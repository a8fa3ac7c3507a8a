#!/bin/sh
# Environments in which Meta-World's and OCBench's tasks run: arena_environments.sh FOLDER
# Each pins a MuJoCo of its own, which is why they cannot share this project's.
set -e
folder=${1:?give the folder to make the environments in}
python3.11 -m venv "$folder/metaworld"
"$folder/metaworld/bin/pip" install -q metaworld==3.1.1 packaging==25.0
python3.11 -m venv "$folder/ocbench"
"$folder/ocbench/bin/pip" install -q ocbench==1.0.2
echo "export METAWORLD_PYTHON=$folder/metaworld/bin/python OCBENCH_PYTHON=$folder/ocbench/bin/python"
