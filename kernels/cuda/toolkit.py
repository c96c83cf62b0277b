"""The compiler for CUDA and its headers, from wheels on PyPI: toolkit.py prints where it is.

toolkit.txt names the wheels and their hashes, cublas.txt the one with cuBLASLt. They are unpacked into .cache/cuda of the
repository. 13.0 is the version that drivers of the 580 series run.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLKIT = HERE / "toolkit.txt"
CUBLAS = HERE / "cublas.txt"
VERSION = hashlib.sha256(TOOLKIT.read_bytes()).hexdigest()[:12]
CACHE = HERE.parents[1] / ".cache" / "cuda"
# What is needed where nothing is compiled for a card.
HEADERS = ["nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl"]
COMPILER = ["nvidia-cuda-nvcc", "nvidia-nvvm"]
# What reads compiled kernels.
READERS = ["nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"]


def include():
    """The folder of the headers."""
    return unpack(TOOLKIT, HEADERS) / "include"


def nvcc():
    """The compiler."""
    return unpack(TOOLKIT, HEADERS + COMPILER) / "bin" / "nvcc"


def cuobjdump():
    """The program that lists what an image contains."""
    return unpack(TOOLKIT, READERS) / "bin" / "cuobjdump"


def cublaslt():
    """The library of products."""
    return unpack(CUBLAS, ["nvidia-cublas"]) / "lib" / "libcublasLt.so.13"


def unpack(wheels_list, names):
    """The folder of the wheels of a list; downloads and unpacks those that are not there yet."""
    home = CACHE / hashlib.sha256(wheels_list.read_bytes()).hexdigest()[:12]
    folder = home / "nvidia" / "cu13"
    missing = [name for name in names if not (home / f"{name}.done").exists()]
    if not missing:
        return folder
    wheels = home / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = home / "wanted.txt"
    lines = wheels_list.read_text().splitlines()
    wanted.write_text("".join(f"{line}\n" for line in lines if line.split("==")[0] in missing))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    ran = subprocess.run([*pip, "-d", wheels, "-r", wanted])
    if ran.returncode:
        sys.exit(f"pip could not download {', '.join(missing)} (SLIPWAY_CUDA_TARGETS=none needs only the headers)")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(home)
        wheel.unlink()
    for programs in ["bin", "nvvm/bin"]:
        for program in (folder / programs).glob("*"):
            program.chmod(0o755)
    for name in missing:
        (home / f"{name}.done").touch()
    return folder


if __name__ == "__main__":
    print(nvcc())
