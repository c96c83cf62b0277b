"""Compiles the CUDA kernels, and the stand-in for the driver: build.py OUT_DIR. `kernels/build.rs` runs it.

Writes OUT_DIR/images.rs: one image for each `src/<op>/kernel.cu`, with machine code for the architectures in
SLIPWAY_CUDA_TARGETS (default "80 86 89 90a") and PTX for later ones. `SLIPWAY_CUDA_TARGETS=none` compiles nothing for a
card: such a program computes on the CPU and on the stand-in. The compiler comes from PyPI (toolkit.txt). Each image is
kept in <target>/cuda under a hash of what it was made from, and the stand-in is in <target>/cuda/standin.
"""

import concurrent.futures
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(KERNELS / "cuda"))
import evidence  # noqa: E402
import toolkit  # noqa: E402

TARGETS_ALL = "80 86 89 90a"
# Later cards compile this one when the program starts.
PTX = "80"
FLAGS = ["-std=c++17", "-O3", "-Werror", "all-warnings"]
HEADERS = KERNELS / "src" / "cuda"
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
ID_MARK = b"slipway-build-id:"


def main():
    out = Path(sys.argv[1])
    # OUT_DIR is <target>/<profile>/build/<package>/out.
    cache = out.parents[3] / "cuda"
    cache.mkdir(parents=True, exist_ok=True)
    targets = os.environ.get("SLIPWAY_CUDA_TARGETS", TARGETS_ALL).split()
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_id = digest(sources())[:16]
        images = fatbins(cache, targets) if targets != ["none"] else {"none": b""}
        write_images(out, images, build_id)
        if os.environ.get("PROFILE") != "release":
            standin(cache / "standin", build_id)


def sources():
    """Every file of kernels."""
    return sorted([*(KERNELS / "src").rglob("*.cu"), *(KERNELS / "src").rglob("*.cuh")])


def digest(paths, *more):
    """A hash of files' names and bytes, and of texts."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(KERNELS)}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    for text in more:
        total.update(f"\0{text}".encode())
    return total.hexdigest()


def fatbins(cache, targets):
    """The image of each file of kernels, compiled where it is not kept from an earlier build."""
    kept, missing = {}, {}
    for source in sources():
        if source.suffix != ".cu":
            continue
        name = "_".join(source.relative_to(KERNELS / "src").with_suffix("").parts)
        key = digest(included(source), FLAGS, targets, toolkit.VERSION)
        path = cache / "fatbin" / f"{name}-{key[:16]}.fatbin"
        kept[name] = path
        if not path.exists():
            missing[source] = path
    if missing:
        nvcc = toolkit.nvcc()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda item: compile_fatbin(nvcc, targets, *item), missing.items()))
    report = cache / "evidence.txt"
    if targets == TARGETS_ALL.split():
        report.write_text(evidence.HEADER + "".join(evidence_of(path) for _, path in sorted(kept.items())))
    else:
        report.unlink(missing_ok=True)
    remove_others(cache / "fatbin", {path.stem for path in kept.values()})
    return {name: path.read_bytes() for name, path in sorted(kept.items())}


def included(source, seen=()):
    """A file and all files of ours that it includes."""
    paths = [*seen, source]
    for name in INCLUDE.findall(source.read_text()):
        found = [folder / name for folder in (source.parent, HEADERS) if (folder / name).exists()]
        if found and found[0].resolve() not in paths:
            paths = included(found[0].resolve(), paths)
    return paths


def compile_fatbin(nvcc, targets, source, path):
    path.parent.mkdir(exist_ok=True)
    half = path.with_suffix(".part")
    code = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets]
    code.append(f"-gencode=arch=compute_{PTX},code=compute_{PTX}")
    # The image holds the name of its source: a relative one is the same on all machines.
    relative = source.relative_to(KERNELS)
    command = [nvcc, "-fatbin", *FLAGS, *code, "-Isrc/cuda", "-o", half.resolve(), relative]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=KERNELS)
    if ran.returncode:
        sys.exit(f"{ran.stdout}{ran.stderr}nvcc could not compile {source}")
    half.rename(path)


def evidence_of(fatbin):
    """The lines of an image, kept beside it."""
    path = fatbin.with_suffix(".txt")
    if not path.exists():
        lines = "".join(evidence.evidence(fatbin))
        path.write_text(lines)
    return path.read_text()


def remove_others(folder, kept):
    """Images of earlier sources, so that the folder does not grow."""
    for path in folder.glob("*"):
        if path.stem not in kept:
            path.unlink()


def write_images(out, images, build_id):
    """The images, each with the hash of all sources behind it, and the Rust file that holds them."""
    lines = []
    for name, image in images.items():
        path = out / f"{name}.image"
        path.write_bytes(image + b"\0" * bool(image) + ID_MARK + build_id.encode() + b"\0")
        lines.append(f'    ("{name}", &Image(*include_bytes!("{path}")).0),\n')
    text = "".join(lines)
    (out / "images.rs").write_text(f"/// The name and the bytes of each image.\nstatic IMAGES: &[(&str, &[u8])] = &[\n{text}];\n")


def standin(out, build_id):
    """The stand-in for the driver, which runs the same kernels on the CPU."""
    recipe = KERNELS / "standin" / "build.py"
    if not recipe.exists():
        return
    if shutil.which("g++") is None:
        print("cargo::warning=g++ is not installed: the tests of the CUDA kernels will be skipped")
        return
    spec = importlib.util.spec_from_file_location("standin_build", recipe)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    out.mkdir(exist_ok=True)
    kernels = [path for path in sources() if path.suffix == ".cu"]
    module.build(module.Standin(toolkit=toolkit.include(), kernels=kernels, out=out, build_id=build_id))


if __name__ == "__main__":
    main()
