#!/bin/sh
# Environments in which the tasks of Meta-World, OCBench and the SO-101 run: arena_environments.sh FOLDER
# The first two pin a MuJoCo of their own, which is why they cannot share this project's.
set -e
folder=${1:?give the folder to make the environments in}
python3.11 -m venv "$folder/metaworld"
"$folder/metaworld/bin/pip" install -q metaworld==3.1.1 packaging==25.0
python3.11 -m venv "$folder/ocbench"
"$folder/ocbench/bin/pip" install -q ocbench==1.0.2
python3.11 -m venv "$folder/so101"
"$folder/so101/bin/pip" install -q lerobot-env-so101==0.4.0 mujoco==3.17.0 gymnasium==1.4.0
echo "export METAWORLD_PYTHON=$folder/metaworld/bin/python OCBENCH_PYTHON=$folder/ocbench/bin/python"
echo "export SO101_PYTHON=$folder/so101/bin/python"
