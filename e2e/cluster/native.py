"""The cluster without Docker: the real control plane and kubelet in namespaces of their own on this machine.

`node.py` is process 1 of those namespaces; this file starts it, gives it the host's end of the network,
waits until Kubernetes is ready, and removes everything again. Whether a node lives is asked of the kernel:
the lock on node.lock is held exactly as long as its first process.
"""

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import archive
import cgroup
import components
import host
import pki
import programs
import shell
from api import Api, ApiError
from layout import (
    API_URL,
    HERE,
    HOST_IP,
    HOST_LINK,
    KUBECONFIG,
    LINK_PREFIX,
    LOGS,
    NODE,
    NODE_IP,
    NODE_LOCK,
    POD_CIDR,
    PROGRAMS,
    SERVICE_CIDR,
    STATE,
    TOOLS,
)

READY_WAIT_S_MAX = 90.0
NODE_WAIT_S_MAX = 10.0
POLL_S = 0.1
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "nft": "nftables",
    "openssl": "openssl",
    "nsenter": "util-linux",
    "mount": "mount",
}
"""Programs the host must have, with the Debian package of each."""
CNI_PACKAGE = "containernetworking-plugins"


def up() -> None:
    """Make the cluster run; nothing to do when it already does."""
    host.install(missing_packages())
    programs.build(programs.NATIVE)
    lock = lock_node()
    if lock is None:
        if heal():
            return
        print("the running cluster does not answer or is of another version; starting a new one", flush=True)
        down()
        lock = lock_node()
        if lock is None:
            fail(f"another process holds {NODE_LOCK}")
    started = time.monotonic()
    if cgroup.processes():
        print("ending the processes of a cluster that another run left, or that has another cache folder", flush=True)
    remove_leftovers()
    start(lock)
    print(f"cluster started in {time.monotonic() - started:.1f} s", flush=True)


def down() -> None:
    """End the node and remove everything it left."""
    remove_leftovers()


def is_running() -> bool:
    """Whether the node's first process lives."""
    return node_process() is not None


def status() -> dict:
    """What runs: {"running", "ready", "reason", "processes": {name: pid on the node or None}, "memory_bytes"}."""
    if not is_running():
        return {"running": False, "ready": False, "reason": "not started", "processes": {}, "memory_bytes": 0}
    reason = unready()
    return {
        "running": True,
        "ready": reason is None,
        "reason": reason,
        "processes": read_json(STATE / "processes.json"),
        "memory_bytes": sum(resident_bytes(pid) for pid in cgroup.processes()),
    }


def load(tars: list[Path]) -> None:
    """Import image archives, but none twice."""
    for tar in tars:
        with open(tar, "rb") as file:
            loaded = STATE / "loaded" / hashlib.file_digest(file, "sha256").hexdigest()
        if not loaded.exists():
            in_node("ctr", "--namespace=k8s.io", "images", "import", "-", stdin=tar)
            loaded.touch()


def missing_packages() -> set[str]:
    """The Debian packages of what the host lacks."""
    missing = {package for name, package in PACKAGES.items() if not shutil.which(name)}
    if not any(Path(folder, "ptp").exists() for folder in components.CNI_FOLDERS):
        missing.add(CNI_PACKAGE)
    return missing


def lock_node() -> int | None:
    """The lock that says a node lives: a descriptor to pass on to a new node, or None when one lives."""
    descriptor = os.open(NODE_LOCK, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def heal() -> bool:
    """Make a living node ready again, if it is of these programs; whether that worked."""
    node = wait_for_node()
    versions = STATE / "programs.txt"
    if node is None or not versions.exists() or versions.read_text() != program_folders():
        return False
    if unready() is None:
        return True
    print("the cluster is not ready; restarting what ended", flush=True)
    try:
        bring_up(node)
    except TimeoutError as error:
        print(f"cluster: {error}", flush=True)
        return False
    return True


def start(lock: int) -> None:
    """Start a node on a clean host and wait until Kubernetes is ready. The lock passes to the node."""
    write_state()
    cgroup.create()
    namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--net", "--uts", "--ipc", "--propagation", "slave"]
    with open(LOGS / "node.log", "ab") as log:
        subprocess.Popen(
            ["unshare", *namespaces, sys.executable, "-B", str(STATE / "tool/node.py"), str(STATE), str(PROGRAMS)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[lock],
            preexec_fn=cgroup.enter,
        )
    os.close(lock)
    node = wait_for_node()
    if node is None:
        fail("the node's first process did not start")
    try:
        bring_up(node)
    except TimeoutError as error:
        fail(str(error))


def write_state() -> None:
    """Make the state folder with all that the programs read."""
    for folder in ("lib/kubelet", "logs/pods", "logs/containers", "image/pause", "loaded", "tool"):
        (STATE / folder).mkdir(parents=True)
    for source in HERE.glob("*.py"):
        # The node runs its own copy: the checkout may change or go while the cluster runs.
        shutil.copy(source, STATE / "tool")
    (STATE / "programs.txt").write_text(program_folders())
    pki.make(STATE / "pki")
    pki.write_private(KUBECONFIG, (STATE / "pki/admin.kubeconfig").read_text())
    for path in (KUBECONFIG, STATE / "pki/admin.key"):
        give_to_caller(path)
    programs.link_tools(programs.NATIVE, TOOLS)
    components.write_files(STATE, snapshotter())
    shutil.copy(programs.path(programs.NODE, "pause"), STATE / "image/pause/pause")
    pause = {"Entrypoint": ["/pause"], "User": "65535:65535"}
    archive.write_image(STATE / "image/pause.tar", components.PAUSE_IMAGE, STATE / "image/pause", pause)
    shell.write_files()


def program_folders() -> str:
    """The states of the Go modules that a node runs, one a line."""
    return "".join(f"{module.folder.name}\n" for module in programs.NATIVE)


def give_to_caller(path: Path) -> None:
    """Under sudo, let the user who called it read a file."""
    if "SUDO_UID" in os.environ:
        os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", "-1")))


def snapshotter() -> str:
    """overlayfs, or native where the state folder cannot carry an overlay (it lies on one, or on NFS)."""
    trial = STATE / "trial"
    for name in ("lower", "upper", "work", "merged"):
        (trial / name).mkdir(parents=True)
    options = ",".join(f"{name}dir={trial / name}" for name in ("lower", "upper", "work"))
    command = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, str(trial / "merged")]
    works = subprocess.run(command, capture_output=True).returncode == 0
    shutil.rmtree(trial)
    return "overlayfs" if works else "native"


def bring_up(node: int) -> None:
    """From a living node to a ready Kubernetes, doing only what is still to do. TimeoutError says what is missing."""
    connect(node)
    start_daemons(node, components.first())
    wait_for(import_pause_image)
    wait_for(api_unready)
    start_daemons(node, components.all_daemons())
    wait_for(apply_objects)
    wait_for(unready)


def connect(node: int) -> None:
    """Join the host and the node by a veth pair, and route pods and Services over it."""
    for cidr in (POD_CIDR, SERVICE_CIDR):
        taken = [route["dev"] for route in ip_json("route", "show", "exact", cidr) if route.get("dev") != HOST_LINK]
        if taken:
            fail(f"this machine already routes {cidr} to {taken[0]}")
    if not link_exists():
        ip("link", "add", HOST_LINK, "type", "veth", "peer", "name", "eth0", "netns", str(node))
    ip("address", "replace", f"{HOST_IP}/{LINK_PREFIX}", "dev", HOST_LINK)
    ip("link", "set", HOST_LINK, "up")
    inside = ["nsenter", f"--net=/proc/{node}/ns/net", "ip"]
    subprocess.run([*inside, "address", "replace", f"{NODE_IP}/{LINK_PREFIX}", "dev", "eth0"], check=True)
    subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
    # The kernel wants a route before kube-proxy may rewrite the address. There is no default route: nothing leaves.
    subprocess.run([*inside, "route", "replace", SERVICE_CIDR, "dev", "eth0", "src", NODE_IP], check=True)
    for cidr in (POD_CIDR, SERVICE_CIDR):
        ip("route", "replace", cidr, "via", NODE_IP, "dev", HOST_LINK)


def start_daemons(node: int, daemons: list[dict]) -> None:
    """Hand the node the list of what should run."""
    partial = STATE / "daemons.partial"
    partial.write_text(json.dumps(daemons, indent=1))
    partial.rename(STATE / "daemons.json")
    os.kill(node, signal.SIGHUP)


def import_pause_image() -> str | None:
    """Give containerd the image of every pod's first container; what is missing while containerd starts."""
    try:
        load([STATE / "image/pause.tar"])
    except subprocess.CalledProcessError as error:
        return f"containerd does not take images: {error.stderr.strip()}"
    return None


def apply_objects() -> str | None:
    """Create the objects every cluster has; what the API server says against it."""
    try:
        api = Api(STATE / "pki")
        for path, thing in components.objects():
            api.apply(path, thing)
    except (OSError, http.client.HTTPException, ApiError) as error:
        return f"the API server does not take objects: {error}"
    return None


def wait_for(missing: Callable[[], str | None]) -> None:
    """Ask `missing` until it says nothing; TimeoutError with its last word, or at once when the node ended."""
    deadline_s = time.monotonic() + READY_WAIT_S_MAX
    while (reason := missing()) is not None:
        if node_process() is None:
            raise TimeoutError("the node's first process ended")
        if time.monotonic() > deadline_s:
            raise TimeoutError(reason)
        time.sleep(POLL_S)


def api_unready() -> str | None:
    """Why the API server is not ready, or None."""
    try:
        Api(STATE / "pki").call("GET", "/readyz")
    except (OSError, http.client.HTTPException, ApiError) as error:
        return f"the API server at {API_URL} is not ready: {error}"
    return None


def unready() -> str | None:
    """Why Kubernetes is not ready, or None: what a first pod needs is asked, one thing after the other."""
    ended = [name for name, pid in read_json(STATE / "processes.json").items() if pid is None]
    if ended:
        return f"{', '.join(ended)} ended; see {LOGS}"
    try:
        api = Api(STATE / "pki")
        api.call("GET", "/readyz")
        for path, _ in components.objects():
            api.call("GET", path)
        api.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        node = api.get(f"/api/v1/nodes/{NODE}")
        dns = http.client.HTTPConnection(NODE_IP, components.DNS_READY_PORT, timeout=1)
        dns.request("GET", "/ready")
        dns_status = dns.getresponse().status
    except (OSError, http.client.HTTPException, ApiError) as error:
        return f"the control plane is not ready: {error}"
    conditions = {condition["type"]: condition for condition in node["status"].get("conditions", [])}
    if conditions.get("Ready", {}).get("status") != "True":
        return f"the node is not ready: {conditions.get('Ready', {}).get('message', 'no status yet')}"
    if node["spec"].get("taints"):
        return f"the node is tainted: {node['spec']['taints'][0]['key']}"
    return None if dns_status == http.client.OK else f"CoreDNS is not ready: {dns_status}"


def wait_for_node() -> int | None:
    """The first process of a node that was just started, once it has arranged its namespaces."""
    deadline_s = time.monotonic() + NODE_WAIT_S_MAX
    while time.monotonic() < deadline_s:
        node = node_process()
        if node is not None:
            return node
        time.sleep(POLL_S)
    return None


def node_process() -> int | None:
    """The node's first process, if it lives."""
    return recorded_process(STATE / "node.json")


def recorded_process(path: Path) -> int | None:
    """The process that a record names, if the one of that number still is that process."""
    record = read_json(path)
    if not record or record["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
        return None
    try:
        stat = Path(f"/proc/{record['pid']}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    is_same = int(fields[19]) == record["start_ticks"] and fields[0] not in "ZX"
    return record["pid"] if is_same else None


def read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def remove_leftovers() -> None:
    """Remove what a node left, however it ended: processes, the host's link with its routes, groups, state."""
    if not cgroup.kill_all():
        fail(f"these processes do not end: {sorted(cgroup.processes())}")
    # The link goes with the node's network by itself, but later; it may do so between the two calls.
    if link_exists() and subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True).returncode and link_exists():
        fail(f"the interface {HOST_LINK} cannot be removed")
    if not cgroup.remove():
        fail("the control groups cannot be removed")
    if STATE.exists():
        shutil.rmtree(STATE)


def link_exists() -> bool:
    return Path("/sys/class/net", HOST_LINK).exists()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def ip_json(*arguments: str) -> list[dict]:
    result = subprocess.run(["ip", "-json", *arguments], check=True, capture_output=True, text=True)
    return json.loads(result.stdout or "[]")


def in_node(*command: str, stdin: Path = Path(os.devnull)) -> str:
    """Run a command with the node's view of the file system; its output."""
    enter = ["nsenter", f"--target={node_process()}", "--mount"]
    with open(stdin, "rb") as source:
        return subprocess.run([*enter, *command], check=True, stdin=source, capture_output=True, text=True).stdout


def resident_bytes(pid: int) -> int:
    """Memory of one process, pages shared with others counted in part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def fail(reason: str) -> NoReturn:
    """Stop with the reason and the place of the logs; the next `up` or `down` removes what is there."""
    sys.exit(f"cluster: {reason}; logs are in {LOGS}")
