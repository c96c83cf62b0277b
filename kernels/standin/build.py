"""Builds the stand-in: libcuda.so.1 (the driver), libcublasLt.so.13, libemukernels.so (the kernels for g++), and
libplanted.so (kernels with planted faults, for the stand-in's own tests).

build(Standin(...)) is called by kernels/cuda/build.py. By hand:
    python3 build.py --toolkit INCLUDE --kernels KERNEL.cu... --out FOLDER
Each kernel file is compiled once; its object is kept under the hash of its preprocessed text.
"""
import argparse
import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
# Sums are contracted only where a kernel says fmaf.
CXX = ["g++", "-std=c++20", "-O2", "-march=x86-64-v3", "-g1", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]
WARNINGS = ["-Wall", "-Werror", "-Wno-psabi", "-Wno-unused-function"]
KERNEL_WARNINGS = ["-w"]   # nvcc checks the kernels
# An index outside of a fixed-size array traps.
BOUNDS = ["-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"]
# What the preprocessor writes about files and lines.
LINE_MARK = re.compile(r'^# \d+ "[^\n]*\n', re.MULTILINE)
BOUNDS_MARK = re.compile(r"standin_bounds\b(.*?)standin_bounds_end", re.DOTALL)
KERNEL = re.compile(r"standin_kernel\s+(?:static\s+)?(?:void\s+)?(?:standin_bounds\b(.*?)standin_bounds_end\s*)?(?:void\s+)?(\w+)\s*\(", re.DOTALL)


@dataclasses.dataclass
class Standin:
    toolkit: pathlib.Path          # folder with cuda.h, cuda_bf16.h, ...
    kernels: list                  # the kernel.cu files
    out: pathlib.Path
    build_id: str                  # the same as the fatbin's


def run(command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-8000:]}")
    return done.stdout


def include_flags(standin):
    folders = [HERE / "device", HERE.parent / "src" / "cuda"]
    return [f"-I{folder}" for folder in folders] + ["-isystem", standin.toolkit]


def cached(standin, name, key, compile_to):
    """The file `name` made by compile_to, once per key. Where sources lie is no part of a key."""
    digest = hashlib.sha256(LINE_MARK.sub("", key).encode()).hexdigest()[:24]
    path = standin.out / "cache" / f"{digest}-{name}"
    if not path.exists():
        partial = path.with_name(f"{os.getpid()}-{path.name}")
        compile_to(partial)
        os.replace(partial, path)
    return path


def kernel_object(standin, source):
    """Compiles a kernel file with one line per kernel that registers it."""
    name = "-".join(pathlib.Path(source).parts[-2:])
    text = run([*CXX, *include_flags(standin), "-xc++", "-E", source])
    seen = {}
    for bounds, kernel in KERNEL.findall(text):
        seen.setdefault(kernel, bounds.strip() or "1024")
    text = BOUNDS_MARK.sub("", text).replace("standin_kernel", "")
    # As STANDIN_KERNEL of register.h: the preprocessed text has no macros left.
    text += "".join(f'static bool standin_registered_{kernel} = emu::Runner<&{kernel}>::add("{kernel}", emu::max_threads({bounds}));\n'
                    for kernel, bounds in seen.items())

    def compile_to(path):
        run([*CXX, *KERNEL_WARNINGS, *BOUNDS, "-fpreprocessed", "-xc++", "-c", "-", "-o", path], input=text)

    return cached(standin, f"{name}.o", " ".join(CXX + KERNEL_WARNINGS + BOUNDS) + "\n" + text, compile_to)


def object_of(standin, source, flags=()):
    text = run([*CXX, *flags, *include_flags(standin), "-xc++", "-E", source])

    def compile_to(path):
        run([*CXX, *WARNINGS, *flags, "-fpreprocessed", "-xc++", "-c", "-", "-o", path], input=text)

    return cached(standin, f"{source.name}.o", " ".join([*CXX, *WARNINGS, *flags]) + "\n" + text, compile_to)


def link(standin, library, objects, flags=()):
    partial = standin.out / f".{os.getpid()}-{library}"
    run(["g++", "-shared", *objects, "-o", partial, *flags])
    os.replace(partial, standin.out / library)


def build(standin):
    """Builds what changed. Returns the folder with the libraries."""
    (standin.out / "cache").mkdir(parents=True, exist_ok=True)
    identity = [f'-DSTANDIN_BUILD_ID="{standin.build_id}"']
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        def compiled(function, sources):
            return [pool.submit(function, standin, source) for source in sources]
        parts = {
            "kernels": compiled(kernel_object, standin.kernels),
            "planted": compiled(kernel_object, sorted((HERE / "planted").glob("*.cu"))),
            "driver": compiled(object_of, sorted((HERE / "driver").glob("*.cpp"))),
            "cublaslt": compiled(object_of, sorted((HERE / "cublaslt").glob("*.cpp"))),
            "device": [pool.submit(object_of, standin, source, identity if source.name == "library.cpp" else ())
                       for source in sorted((HERE / "device").glob("*.cpp"))],
        }
        parts = {name: [future.result() for future in futures] for name, futures in parts.items()}
    # cudarc opens "libcuda.so" and "libcublasLt.so" first; a loaded library answers to its soname.
    link(standin, "libemukernels.so", parts["device"] + parts["kernels"])
    link(standin, "libplanted.so", parts["device"] + parts["planted"])
    link(standin, "libcuda.so.1", parts["driver"], ["-Wl,-soname,libcuda.so", "-ldl", "-lrt"])
    link(standin, "libcublasLt.so.13", parts["cublaslt"], ["-Wl,-soname,libcublasLt.so", standin.out / "libcuda.so.1"])
    remove_others(standin, [path for objects in parts.values() for path in objects])
    return standin.out


def remove_others(standin, kept):
    """Objects of earlier sources, so that the folder does not grow."""
    for path in (standin.out / "cache").glob("*.o"):
        if path not in kept:
            path.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--toolkit", type=pathlib.Path, required=True)
    parser.add_argument("--kernels", nargs="*", default=sorted((HERE.parent / "src").rglob("*.cu")))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--build-id", default="by hand")
    a = parser.parse_args()
    print(build(Standin(a.toolkit, a.kernels, a.out, a.build_id)))


if __name__ == "__main__":
    main()
