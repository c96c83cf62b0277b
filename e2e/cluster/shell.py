"""Commands of this host in the cluster's network: its addresses, its DNS, but the host's files and programs."""

import os
from pathlib import Path

from layout import DNS_SERVICE_IP, SEARCH, STATE

RESOLV_CONF = STATE / "resolv.conf"
NSSWITCH_CONF = STATE / "nsswitch.conf"


def write_files() -> None:
    """Write the two files that stand in for the host's while a command runs."""
    RESOLV_CONF.write_text(f"nameserver {DNS_SERVICE_IP}\nsearch {SEARCH}\noptions ndots:5\n")
    NSSWITCH_CONF.write_text(nsswitch(Path("/etc/nsswitch.conf")))


def nsswitch(host: Path) -> str:
    """The host's nsswitch.conf, but names are asked of DNS and not of a resolver that knows only the host's."""
    lines = host.read_text().splitlines() if host.exists() else []
    kept = [line for line in lines if not line.startswith("hosts:")]
    return "\n".join([*kept, "hosts: files dns", ""])


def replace_by(command: list[str], node: int) -> None:
    """Replace this process by `command` in the network of process `node`."""
    mounts = "".join(
        f'[ ! -e {target} ] || mount --bind "$1/{source.name}" {target} || exit; '
        for source, target in ((RESOLV_CONF, "/etc/resolv.conf"), (NSSWITCH_CONF, "/etc/nsswitch.conf"))
    )
    enter = ["nsenter", f"--net=/proc/{node}/ns/net", "unshare", "--mount", "--propagation", "private"]
    os.execvp(enter[0], [*enter, "sh", "-c", f'{mounts}shift; exec "$@"', "sh", str(STATE), *command])
