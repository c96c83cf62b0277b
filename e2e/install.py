"""`make install`: kubectl-slipway and slipway-runtime for this person, or below PREFIX, with completions and manual."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import progress

PROGRAMS = ("kubectl-slipway", "slipway-runtime")
# Where each shell looks for completions, and the name of the file there.
SHELLS = {
    "bash": "bash-completion/completions/{name}",
    "zsh": "zsh/site-functions/_{name}",
    "fish": "fish/vendor_completions.d/{name}.fish",
}
# kubectl runs this program for the completions of `kubectl slipway`.
KUBECTL_COMPLETES = "kubectl_complete-slipway"


def places() -> tuple[Path, Path]:
    """The folders of programs and of shared files."""
    if prefix := os.environ.get("PREFIX"):
        return Path(prefix) / "bin", Path(prefix) / "share"
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    return cargo / "bin", Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))


def build() -> Path:
    """Builds the programs and returns the folder that holds them."""
    profile = os.environ.get("PROFILE", "release")
    command = ["cargo", "build", "--locked", "--workspace", "--bins"]
    if profile == "release":
        command.append("--release")
    progress.run(f"Build the programs ({profile} profile)", command, progress.last_word_of_cargo)
    target = Path(os.environ.get("CARGO_TARGET_DIR", progress.ROOT / "target"))
    return target / ("release" if profile == "release" else "debug")


def install(built: Path, bin_folder: Path, share: Path) -> None:
    """Copies programs; each writes its own completions and pages of the manual."""
    manual = share / "man" / "man1"
    bin_folder.mkdir(parents=True, exist_ok=True)
    manual.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        # A program that runs cannot be written to, but its name can be given to another file.
        fresh = bin_folder / f".{name}.new"
        shutil.copy2(built / name, fresh)
        fresh.rename(bin_folder / name)
        program = str(bin_folder / name)
        subprocess.run([program, "man", str(manual)], check=True)
        for shell, path in SHELLS.items():
            file = share / path.format(name=name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(subprocess.run([program, "completions", shell], check=True, capture_output=True, text=True).stdout)
        print(f"installed {program}")
    completes = bin_folder / KUBECTL_COMPLETES
    completes.write_text(f'#!/bin/sh\nexec {shlex.quote(str(bin_folder / "kubectl-slipway"))} complete -- "$@"\n')
    completes.chmod(0o755)
    print(f"installed {completes}")
    if str(bin_folder) not in os.environ.get("PATH", "").split(os.pathsep):
        print(f"{bin_folder} is not in PATH; kubectl finds its plugins there only")


def main() -> int:
    """Builds and installs; 0 if both succeeded."""
    try:
        install(build(), *places())
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    print("next:  kubectl slipway --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
