#!/bin/sh
# An environment in which LeRobot's ACT and diffusion policies train and act, without a GPU: lerobot_environment.sh FOLDER
# LeRobot 0.4.4 asks for torch < 2.11 and for torchvision's CUDA build; both policies run with what is installed here.
set -e
folder=${1:?give the folder of the environment to make}
python3.11 -m venv "$folder"
"$folder/bin/pip" install -q torch==2.13.0
"$folder/bin/pip" install -q --no-deps torchvision==0.28.0 lerobot==0.4.4
"$folder/bin/pip" install -q numpy==2.4.6 pillow==13.0.0 einops==0.8.1 diffusers==0.35.2 draccus==0.10.0 \
  huggingface_hub==0.35.3 safetensors==0.8.0 packaging==25.0 termcolor==3.3.0 gymnasium==1.2.2 deepdiff==8.6.2 \
  jsonlines==4.0.0 datasets==4.4.1 imageio==2.38.1 pyserial==3.5 av==15.1.0 accelerate==1.11.0
echo "LEROBOT_PYTHON=$folder/bin/python"
