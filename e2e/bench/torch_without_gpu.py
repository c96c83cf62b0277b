"""Lets torch's default wheel load without several gigabytes of libraries for GPUs: `torch_without_gpu.py SITE_PACKAGES`.

The wheel's own libraries name them and their functions, so the loader opens both even if only the processor computes. This
writes libraries of those names into the wheel's folder, whose functions do nothing but say that there is no device.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Names of the libraries and the functions of CUDA.
LIBRARY = re.compile(r"lib(cu\w*|nv\w*|nccl)\.so\.\d+")
FUNCTION = re.compile(r"(__cuda|__nvrtc|cu|nv|nccl)\w+")
NO_DEVICE = 100
UNVERSIONED = "libnccl.so.2"


def words(command: list[object]) -> list[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout.split()


def main() -> None:
    folder = Path(sys.argv[1]) / "torch" / "lib"
    libraries: dict[str, set[tuple[str, str]]] = {}
    functions: set[tuple[str, str]] = set()
    for file in folder.glob("*.so"):
        needed = (name.strip("[]") for name in words(["readelf", "-d", file]))
        libraries.update((name, set()) for name in needed if LIBRARY.fullmatch(name))
        undefined = (name.partition("@") for name in words(["nm", "-D", "--undefined-only", file]))
        functions.update((name, version.strip("@")) for name, _, version in undefined if FUNCTION.fullmatch(name))
    for name, version in functions:
        # The version of a function is the name of its library, or begins it; those without one are found wherever they are.
        named = (library for library in libraries if version and version.lower() in library.lower())
        libraries[next(named, UNVERSIONED)].add((name, version))
    for library, names in libraries.items():
        make(folder / library, sorted(names))
    print(f"{len(libraries)} libraries, {len(functions)} functions")


def make(file: Path, functions: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as work:
        code, script = Path(work) / "stub.c", Path(work) / "versions"
        answers = {name: NO_DEVICE if name == "cudaGetDeviceCount" else 0 for name, _ in functions}
        code.write_text("".join(f"long {name}(void) {{ return {answer}; }}\n" for name, answer in answers.items()))
        versions = {version for _, version in functions if version}
        script.write_text("".join(f"{version} {{ global: *; }};\n" for version in versions))
        option = [f"-Wl,--version-script={script}"] if versions else []
        words(["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{file.name}", *option, "-o", file, code])


if __name__ == "__main__":
    main()
