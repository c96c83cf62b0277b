"""The compiler for CUDA and its headers, from wheels on PyPI: toolkit.py prints where it is.

toolkit.txt names the wheels and their hashes. They are unpacked into .cache/cuda of the repository. 13.0 is the version that
drivers of the 580 series run.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

LIST = Path(__file__).resolve().parent / "toolkit.txt"
VERSION = hashlib.sha256(LIST.read_bytes()).hexdigest()[:12]
HOME = LIST.parents[2] / ".cache" / "cuda" / VERSION
# What is needed where nothing is compiled for a card.
HEADERS = ["nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl"]
COMPILER = ["nvidia-cuda-nvcc", "nvidia-nvvm"]
# What reads compiled kernels.
READERS = ["nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"]


def include():
    """The folder of the headers."""
    unpack(HEADERS)
    return HOME / "nvidia" / "cu13" / "include"


def nvcc():
    """The compiler."""
    unpack(HEADERS + COMPILER)
    return HOME / "nvidia" / "cu13" / "bin" / "nvcc"


def cuobjdump():
    """The program that lists what an image contains."""
    unpack(READERS)
    return HOME / "nvidia" / "cu13" / "bin" / "cuobjdump"


def unpack(names):
    """Downloads and unpacks the wheels that are not there yet."""
    missing = [name for name in names if not (HOME / f"{name}.done").exists()]
    if not missing:
        return
    wheels = HOME / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = HOME / "wanted.txt"
    lines = LIST.read_text().splitlines()
    wanted.write_text("".join(f"{line}\n" for line in lines if line.split("==")[0] in missing))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    ran = subprocess.run([*pip, "-d", wheels, "-r", wanted])
    if ran.returncode:
        sys.exit(f"pip could not download {', '.join(missing)} (SLIPWAY_CUDA_TARGETS=none needs only the headers)")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(HOME)
        wheel.unlink()
    for folder in ["bin", "nvvm/bin"]:
        for program in (HOME / "nvidia" / "cu13" / folder).glob("*"):
            program.chmod(0o755)
    for name in missing:
        (HOME / f"{name}.done").touch()


if __name__ == "__main__":
    print(nvcc())
