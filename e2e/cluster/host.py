"""What the tool asks of the host: to be root, and Debian packages. Where it may not take them, it prints the one command."""

import os
import shlex
import shutil
import subprocess
import sys


def require_root() -> None:
    """Stop with the one command that does the same as root."""
    if os.geteuid() != 0:
        command = shlex.join([sys.executable, *sys.argv])
        sys.exit(f'this needs root (or Docker). Run:\n  sudo --preserve-env env "PATH=$PATH" "HOME=$HOME" {command}')


def install(packages: set[str]) -> None:
    """Install Debian packages; elsewhere say what is missing."""
    if not packages:
        return
    names = sorted(packages)
    if not shutil.which("apt-get"):
        sys.exit(f"install these first (named as in Debian): {' '.join(names)}")
    require_root()
    print(f"installing {' '.join(names)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *names]):
        done = subprocess.run([*apt, *arguments], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"apt-get {' '.join(arguments)} failed:\n{done.stderr}")
