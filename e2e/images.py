#!/usr/bin/env python3
"""The container images, from the workspace's binaries: `images.py [--load | --names]`.

Each image is one Containerfile, built by Docker, or by buildah where Docker does not run. Its tag holds a
hash of all that went into it, so an unchanged image is not built again and a changed one rolls out.
PROFILE=dev takes the binaries of the tests in place of the release build; REGISTRY is the prefix of the names. BASE
names the base image, and without it a minimal one is made from this machine's Debian packages, so that no registry is
needed. CUDA=1 adds a runtime image for pods with GPUs, which also holds NVIDIA's cuBLASLt (from PyPI, 0.4 GB).
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "e2e" / "cluster"), str(ROOT / "kernels" / "cuda")]

import archive  # noqa: E402
import host  # noqa: E402
import kind  # noqa: E402
import toolkit  # noqa: E402
from layout import cache  # noqa: E402

CACHE = cache() / "images"
IS_DEV = os.environ.get("PROFILE") == "dev"
REGISTRY = os.environ.get("REGISTRY", "localhost")
VERSION = re.search(r"^appVersion: (.*)$", (ROOT / "charts" / "slipway" / "Chart.yaml").read_text(), re.MULTILINE)[1]
TAG_PREFIX = "dev" if IS_DEV else VERSION
KEPT_MAX = 3
"""Archives of one image that are kept."""

BASE_PACKAGES = ("libc6", "libgcc-s1", "ca-certificates")
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
BASE_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
BASE_CONFIG = {"Env": ["PATH=/usr/local/bin:/usr/bin"], "User": "65532:65532", "WorkingDir": "/"}

SHIPPED_MODEL = ROOT / "examples" / "models" / "tiny-trained"
REPOSITORIES_OF_SHIPPED_MODEL = ("tiny-trained", "gated", "interrupted", "slow")


@dataclass(frozen=True)
class Image:
    """One image: its short name, its repository, its binary, its Containerfile."""

    name: str
    repository: str
    binary: str
    containerfile: Path


TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
STANDIN = TARGET / "cuda" / "standin"
"""The stand-in for the CUDA driver, which builds of the tests make where there is a C++ compiler."""

CUDA_IMAGE = Image(
    "runtimeCuda", f"{REGISTRY}/slipway-runtime-cuda", "slipway-runtime", ROOT / "runtime" / "Containerfile.cuda"
)
STANDIN_IMAGE = Image(
    "runtimeStandin", "localhost/slipway-e2e-runtime-standin", "slipway-runtime", ROOT / "kernels" / "standin" / "Containerfile"
)
IMAGES = (
    Image("operator", f"{REGISTRY}/slipway-operator", "slipway-operator", ROOT / "operator" / "Containerfile"),
    Image("runtime", f"{REGISTRY}/slipway-runtime", "slipway-runtime", ROOT / "runtime" / "Containerfile"),
    Image("hub", "localhost/slipway-e2e-hub", "hub", ROOT / "e2e" / "Containerfile"),
    *([CUDA_IMAGE] if os.environ.get("CUDA") == "1" else []),
    *([STANDIN_IMAGE] if IS_DEV and STANDIN.exists() else []),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--load", action="store_true", help="load the images into the local cluster too")
    mode.add_argument("--names", action="store_true", help="build nothing; print the full names as JSON")
    arguments = parser.parse_args()
    base = Base.chosen()
    tags = {image.name: tag(image, base) for image in IMAGES}
    if arguments.names:
        print(json.dumps(tags))
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    missing = [image for image in IMAGES if not archive_of(tags[image.name]).exists()]
    if missing:
        build(missing, base, tags)
    for image in IMAGES:
        path = archive_of(tags[image.name])
        print(f"{tags[image.name]}  {path.stat().st_size / 1e6:.0f} MB  {path}", flush=True)
    if not IS_DEV:
        print(next_commands(tags))
    if arguments.load:
        archives = [str(archive_of(name)) for name in tags.values()]
        subprocess.run([sys.executable, str(ROOT / "e2e/cluster/cluster.py"), "load", *archives], check=True)


def next_commands(tags: dict[str, str]) -> str:
    """How to get release images to a cluster, and Slipway into it."""
    push = "docker push {name}" if kind.docker_runs() else "buildah push docker-archive:{archive} docker://{name}"
    names = [name for name in tags if name != "hub"]
    lines = [push.format(name=tags[name], archive=archive_of(tags[name])) for name in names]
    values = [f"--set image.{name}.{key}={value}" for name in names for key, value in parts(tags[name])]
    install = ["helm install slipway charts/slipway -n slipway-system --create-namespace", *values]
    registry = "" if REGISTRY != "localhost" else "\nREGISTRY=registry.example.com/team make images names them for your registry."
    return "\nNext:\n\n  " + "\n  ".join([*lines, " \\\n    ".join(install)]) + "\n" + registry


def parts(full_name: str) -> list[tuple[str, str]]:
    """Repository and tag of an image."""
    repository, _, tag = full_name.rpartition(":")
    return [("repository", repository), ("tag", tag)]


@dataclass(frozen=True)
class Base:
    """The base image: its name, and the folder it is made from where it is ours."""

    name: str
    is_ours: bool

    @classmethod
    def chosen(cls) -> "Base":
        """$BASE, or one made of the Debian packages at the versions installed here, which the binaries were linked with."""
        if os.environ.get("BASE"):
            return cls(os.environ["BASE"], False)
        if not shutil.which("dpkg-query"):
            sys.exit("images: on a machine without Debian packages, set BASE to an image with glibc, libgcc and CA certificates")
        query = ["dpkg-query", "--show", "--showformat=${Package}=${Version}\\n", *BASE_PACKAGES]
        found = subprocess.run(query, capture_output=True, text=True)
        if found.returncode != 0:
            host.install(set(BASE_PACKAGES))
            found = subprocess.run(query, capture_output=True, text=True, check=True)
        recipe = found.stdout + json.dumps([BASE_FILES, BASE_CONFIG])
        return cls(f"localhost/slipway-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}", True)


def tag(image: Image, base: Base) -> str:
    """The image's full name; its tag is the hash of everything that goes into it."""
    digest = hashlib.sha256(base.name.encode())
    for path in [image.containerfile, binary_of(image), *extra_files(image)]:
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{image.repository}:{TAG_PREFIX}-{digest.hexdigest()[:12]}"


def binary_of(image: Image) -> Path:
    """The built binary, or how to build it."""
    path = TARGET / ("debug" if IS_DEV else "release") / image.binary
    if not path.exists():
        sys.exit(f"images: {path} is not built; run: cargo build --workspace --bins{'' if IS_DEV else ' --release'}")
    return path


def extra_files(image: Image) -> list[Path]:
    """What an image holds beside its binary: the hub has its repositories, those for GPUs have libraries."""
    if image == CUDA_IMAGE:
        return [toolkit.cublaslt()]
    if image == STANDIN_IMAGE:
        return standin_libraries()
    if image.name != "hub":
        return []
    folders = (ROOT / "e2e" / "repositories", SHIPPED_MODEL)
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def standin_libraries() -> list[Path]:
    """The stand-in's libraries, and the C++ library that they need."""
    found = subprocess.run(["g++", "-print-file-name=libstdc++.so.6"], check=True, capture_output=True, text=True)
    names = ("libcuda.so.1", "libcublasLt.so.13", "libemukernels.so")
    return [*(STANDIN / name for name in names), Path(found.stdout.strip())]


def archive_of(full_name: str) -> Path:
    """Where the image's docker-archive tar is kept."""
    return CACHE / f"{full_name.rpartition('/')[2].replace(':', '-')}.tar"


def build(images: list[Image], base: Base, tags: dict[str, str]) -> None:
    """Build images into their archives; what is needed for that alone is gone afterwards, or with the next build."""
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in CACHE.glob("build-*"):
            shutil.rmtree(stale)
        build_alone(images, base, tags)


def build_alone(images: list[Image], base: Base, tags: dict[str, str]) -> None:
    """Build images while no other build runs."""
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="build-") as work:
        builder = Docker() if kind.docker_runs() else Buildah(Path(work))
        if base.is_ours:
            base_archive = Path(work) / "base.tar"
            write_base(Path(work) / "base", base_archive, base)
            builder.add(base_archive)
        for image in images:
            context = Path(work) / image.name
            stage(image, context)
            if base.is_ours:
                check_libraries(context / image.binary, Path(work) / "base")
            print(f"building {tags[image.name]}", flush=True)
            partial = Path(work) / f"{image.name}.tar"
            builder.build(image, base, tags[image.name], context)
            builder.save(tags[image.name], partial)
            partial.rename(archive_of(tags[image.name]))
            remove_old(image)


def write_base(folder: Path, target: Path, base: Base) -> None:
    """Make the base: the C library and libgcc of this machine's packages, CA certificates, two users, /tmp."""
    for name, text in BASE_FILES.items():
        write(folder / name, text)
    (folder / "usr/lib64").mkdir(parents=True)
    for link in ("lib", "lib64"):
        (folder / link).symlink_to(f"usr/{link}")
    for path in package_files("libc6", "libgcc-s1"):
        if ".so" in path.name and not {"gconv", "audit"} & set(path.parts):
            inside = folder / "usr" / path.relative_to("/").as_posix().removeprefix("usr/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path.resolve(), inside)
    certificates = [path.read_text() for path in package_files("ca-certificates") if path.suffix == ".crt"]
    write(folder / CERTIFICATES, "".join(sorted(certificates)))
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    archive.write_image(target, base.name, folder, BASE_CONFIG)


def package_files(*packages: str) -> list[Path]:
    """The files of installed Debian packages."""
    listed = subprocess.run(["dpkg-query", "--listfiles", *packages], check=True, capture_output=True, text=True)
    return sorted({Path(line) for line in listed.stdout.split("\n") if line and Path(line).is_file()})


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def stage(image: Image, context: Path) -> None:
    """Lay out the build context: the binary without debugging symbols, and the hub's repositories."""
    context.mkdir()
    subprocess.run(["strip", "--strip-debug", "-o", str(context / image.binary), str(binary_of(image))], check=True)
    if image == CUDA_IMAGE:
        shutil.copy(toolkit.cublaslt(), context)
    if image == STANDIN_IMAGE:
        for library in standin_libraries():
            shutil.copy(library, context)
    if image.name == "hub":
        repositories = context / "repositories"
        shutil.copytree(ROOT / "e2e" / "repositories", repositories)
        first, *others = (repositories / "slipway" / name for name in REPOSITORIES_OF_SHIPPED_MODEL)
        shutil.copytree(SHIPPED_MODEL, first)
        for other in others:
            other.symlink_to(first.name)


def check_libraries(binary: Path, base: Path) -> None:
    """Refuse a binary that asks for a shared library which the base lacks."""
    dynamic = subprocess.run(["readelf", "--dynamic", "--wide", str(binary)], check=True, capture_output=True, text=True)
    needed = [line.partition("[")[2].rstrip("]") for line in dynamic.stdout.splitlines() if "(NEEDED)" in line]
    present = {path.name for path in base.rglob("*.so*")}
    if set(needed) - present:
        sys.exit(f"images: {binary.name} is linked with {', '.join(sorted(set(needed) - present))}, which the base image lacks")


def remove_old(image: Image) -> None:
    """Keep the newest archives of an image."""
    stem = image.repository.rpartition("/")[2]
    archives = sorted(CACHE.glob(f"{stem}-{TAG_PREFIX}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[KEPT_MAX:]:
        old.unlink()


class Docker:
    """Builds with Docker; the image also has the tag `dev`, or the version."""

    def add(self, archive_path: Path) -> None:
        self.run("load", "--quiet", "--input", str(archive_path))

    def build(self, image: Image, base: Base, full_name: str, context: Path) -> None:
        tags = ["--tag", full_name, "--tag", f"{image.repository}:{TAG_PREFIX}"]
        self.run("build", "--quiet", "--build-arg", f"BASE={base.name}", *tags, "--file", str(image.containerfile), str(context))

    def save(self, full_name: str, target: Path) -> None:
        self.run("save", "--output", str(target), full_name)

    def run(self, *arguments: str) -> None:
        run("docker", *arguments)


class Buildah:
    """Builds with buildah in a store of its own, which goes when the build ends."""

    def __init__(self, work: Path) -> None:
        host.install(set() if shutil.which("buildah") else {"buildah"})
        host.require_root()
        self.store = ["--root", str(work / "store"), "--runroot", str(work / "run"), "--storage-driver", "vfs"]

    def add(self, archive_path: Path) -> None:
        self.run("pull", "--quiet", f"docker-archive:{archive_path}")

    def build(self, image: Image, base: Base, full_name: str, context: Path) -> None:
        arguments = ["--quiet", "--isolation", "chroot", "--pull=false" if base.is_ours else "--pull", "--build-arg", f"BASE={base.name}"]
        self.run("build", *arguments, "--tag", full_name, "--file", str(image.containerfile), str(context))

    def save(self, full_name: str, target: Path) -> None:
        self.run("push", "--quiet", full_name, f"docker-archive:{target}:{full_name}")

    def run(self, *arguments: str) -> None:
        run("buildah", *self.store, *arguments)


def run(*command: str) -> None:
    """Run a builder's command, silent unless it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"images: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
