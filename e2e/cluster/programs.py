"""The programs of the cluster: built from the Go modules under go/, once, and kept.

A module's key is the hash of its files, so a changed version or checksum builds anew and an unchanged
one costs a look. Knows nothing of how the programs are run.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from layout import HERE, PROGRAMS

KUBERNETES_VERSION = "1.34.4"
HELM_VERSION = "3.19.0"
GO_URL = "https://go.dev/dl"
GO_VERSION_MIN = (1, 24)
REPORT_PERIOD_S = 10
KEPT_MAX = 3
"""States of one module that are kept: those of the checkouts in use."""

VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
KUBERNETES_SYMBOLS = tuple(
    f"{package}.{symbol}"
    for package in VERSION_PACKAGES
    for symbol in (
        f"gitVersion=v{KUBERNETES_VERSION}",
        f"gitMajor={KUBERNETES_VERSION.split('.')[0]}",
        f"gitMinor={KUBERNETES_VERSION.split('.')[1]}",
        "gitTreeState=clean",
    )
)


@dataclass(frozen=True)
class Module:
    """One Go module: its packages by the name of the binary, the strings set by the linker, a note for who waits."""

    name: str
    packages: dict[str, str]
    symbols: tuple[str, ...] = ()
    note: str = ""

    @property
    def source(self) -> Path:
        return HERE / "go" / self.name

    @property
    def folder(self) -> Path:
        """Where this state of the module keeps its binaries."""
        digest = hashlib.sha256(repr((platform.machine(), self.packages, self.symbols)).encode())
        for file in sorted(self.source.rglob("*.*")):
            digest.update(f"\0{file.relative_to(self.source)}\0".encode() + file.read_bytes())
        return PROGRAMS / f"{self.name}-{digest.hexdigest()[:12]}"


KUBERNETES = Module(
    "kubernetes",
    {
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        )
    },
    KUBERNETES_SYMBOLS,
    "; some six minutes on two cores",
)
KUBECTL = Module("kubernetes", {"kubectl": "k8s.io/kubernetes/cmd/kubectl"}, KUBERNETES_SYMBOLS)
ETCD = Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"})
HELM = Module(
    "helm",
    {"helm": "helm.sh/helm/v3/cmd/helm"},
    (
        f"helm.sh/helm/v3/internal/version.version=v{HELM_VERSION}",
        f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor={KUBERNETES_VERSION.split('.')[0]}",
        f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor={KUBERNETES_VERSION.split('.')[1]}",
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={KUBERNETES_VERSION.split('.')[0]}",
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={KUBERNETES_VERSION.split('.')[1]}",
    ),
)
NODE = Module("node", {"coredns": "./coredns", "pause": "./pause"})
KIND = Module("kind", {"kind": "sigs.k8s.io/kind"})

NATIVE = (KUBERNETES, ETCD, NODE, HELM)
"""What the cluster without Docker is made of."""

WITH_DOCKER = (KIND, KUBECTL, HELM)
"""What is needed beside kind's own node image."""


def build(modules: tuple[Module, ...]) -> None:
    """Build what is missing. Called under the tool's lock; a killed build leaves only a folder that the next one removes."""
    missing = [module for module in modules if not module.folder.is_dir()]
    if not missing:
        return
    require_go()
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    for stale in PROGRAMS.glob("*.partial"):
        shutil.rmtree(stale)
    for idx, module in enumerate(missing, 1):
        print(f"building {module.name} from its Go module ({idx} of {len(missing)}, kept afterwards{module.note})", flush=True)
        build_module(module)


def build_module(module: Module) -> None:
    """Build one module into a folder beside its final place, then move it there."""
    partial = Path(tempfile.mkdtemp(dir=PROGRAMS, prefix=f"{module.name}-", suffix=".partial"))
    ldflags = " ".join(["-s", "-w", *(f"-X {symbol}" for symbol in module.symbols)])
    started = time.monotonic()
    watch(["go", "build", "-v", "-ldflags", ldflags, "-o", f"{partial}/", *module.packages.values()], module)
    for name, package in module.packages.items():
        (partial / default_name(package)).rename(partial / name)
    partial.chmod(0o755)
    partial.rename(module.folder)
    kept = sorted(PROGRAMS.glob(f"{module.name}-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for old in kept[KEPT_MAX:]:
        shutil.rmtree(old)
    print(f"built {module.name} in {time.monotonic() - started:.0f} s", flush=True)


def default_name(package: str) -> str:
    """The name go build gives the binary of `package`: the last part of its path that is no major version."""
    *_, parent, last = ("", *package.split("/"))
    return parent if last[0] == "v" and last[1:].isdigit() else last


def watch(command: list[str], module: Module) -> None:
    """Run one go build and report the packages it compiled every few seconds."""
    started = reported = time.monotonic()
    n_packages = 0
    last_lines: list[str] = []
    with subprocess.Popen(command, cwd=module.source, stderr=subprocess.PIPE, text=True) as go:
        for line in go.stderr:
            n_packages += not line.startswith("go: downloading")
            last_lines = [*last_lines[-20:], line]
            if time.monotonic() - reported > REPORT_PERIOD_S:
                reported = time.monotonic()
                print(f"{module.name}: {n_packages} packages compiled, {reported - started:.0f} s", flush=True)
    if go.returncode != 0:
        sys.stderr.writelines(last_lines)
        sys.exit(f"{' '.join(command)} failed with exit code {go.returncode} in {module.source}")


def require_go() -> None:
    """Stop with the remedy when there is no Go, or one that is too old."""
    wanted = ".".join(map(str, GO_VERSION_MIN))
    if not shutil.which("go"):
        sys.exit(f"Go {wanted} or later is needed to build Kubernetes; see {GO_URL}")
    # Asked inside a module, a Go that fetches the toolchain a module wants answers with that one.
    go = ["go", "env", "GOVERSION"]
    text = subprocess.run(go, cwd=KUBERNETES.source, capture_output=True, text=True, check=True).stdout.strip()
    version = tuple(int(part) for part in text.removeprefix("go").split("-")[0].split(".")[:2] if part.isdigit())
    if version < GO_VERSION_MIN:
        sys.exit(f"Go {wanted} or later is needed to build Kubernetes, this is {text}; see {GO_URL}")


def path(module: Module, name: str) -> Path:
    """The built binary `name` of `module`."""
    if name not in module.packages:
        raise KeyError(f"{module.name} has no program {name}")
    return module.folder / name


def link_tools(modules: tuple[Module, ...], folder: Path) -> None:
    """Put kubectl and helm of `modules` into `folder`, for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in modules:
        for name in ("kubectl", "helm"):
            if name in module.packages:
                link = folder / name
                link.unlink(missing_ok=True)
                os.symlink(path(module, name), link)
