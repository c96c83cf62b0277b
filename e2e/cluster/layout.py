"""The names, addresses and folders of the local cluster.

Every other file takes them from here; this one does nothing.
"""

import os
from pathlib import Path

NAME = "slipway"
"""Prefix of everything the cluster makes: the host's interface, the cgroup, the node, the kind cluster."""

NODE = f"{NAME}-node"
HOST_LINK = f"{NAME}0"
"""The host's end of the veth pair; the node's end is eth0."""

HOST_IP = "10.250.0.2"
NODE_IP = "10.250.0.1"
LINK_PREFIX = 30
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
API_URL = f"https://{NODE_IP}:6443"
DOMAIN = "cluster.local"
SEARCH = f"default.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
"""DNS search list of `exec`, the one a pod of the namespace default has."""

HERE = Path(__file__).resolve().parent


def cache() -> Path:
    """The folder of everything the tool keeps: $SLIPWAY_CACHE, else slipway/ in the user's cache."""
    chosen = os.environ.get("SLIPWAY_CACHE")
    if chosen:
        return Path(chosen).resolve()
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user).resolve() / "slipway"


CLUSTER = cache() / "cluster"
PROGRAMS = CLUSTER / "programs"
"""Built binaries, one folder for each state of a Go module."""

STATE = CLUSTER / "state"
"""Everything of the running cluster; gone after `down`."""

KUBECONFIG = STATE / "kubeconfig"
LOGS = STATE / "logs"
TOOLS = STATE / "tools"
"""Links to kubectl and helm, for PATH."""

LOCK = CLUSTER / "lock"
"""Held by the one tool that changes the cluster."""

NODE_LOCK = CLUSTER / "node.lock"
"""Held by the node's first process for as long as it lives."""

INSIDE = Path("/run/slipway")
"""Where the node's own mount namespace shows state/ and programs/."""
