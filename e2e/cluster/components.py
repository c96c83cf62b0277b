"""What runs on the node and how it is configured: the files the programs read, and their command lines.

All paths are those of the node's own mount namespace (layout.INSIDE, /run, /var/lib, /var/log). Only
writes files; native.py starts things.
"""

import json
import shutil
import sys
from pathlib import Path

import programs
import volumes
from layout import (
    DNS_SERVICE_IP,
    DOMAIN,
    INSIDE,
    NAME,
    NODE,
    NODE_IP,
    POD_CIDR,
    SERVICE_CIDR,
)

STATE = INSIDE / "state"
PKI = STATE / "pki"
PAUSE_IMAGE = f"localhost/{NAME}-pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
DNS_READY_PORT = 8181
CAP_SYS_RESOURCE = 24
CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")


def write_files(state: Path, snapshotter: str) -> None:
    """Write the configuration files into the state folder."""
    (state / "kubelet.json").write_text(json.dumps(kubelet_config(), indent=1))
    (state / "containerd.toml").write_text(containerd_config(snapshotter))
    (state / "cni").mkdir()
    (state / "cni/10-slipway.conflist").write_text(json.dumps(cni_config(), indent=1))
    (state / "Corefile").write_text(corefile())
    (state / "no-nameserver.conf").write_text("")


def first() -> list[dict]:
    """The programs that need no API server."""
    return [
        daemon(
            "etcd",
            program(programs.ETCD, "etcd"),
            f"--data-dir={STATE}/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
        daemon(
            "kube-apiserver",
            program(programs.KUBERNETES, "kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={NODE_IP}",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={PKI}/ca.crt",
            f"--requestheader-client-ca-file={PKI}/ca.crt",
            "--requestheader-allowed-names=front-proxy",
            f"--tls-cert-file={PKI}/apiserver.crt",
            f"--tls-private-key-file={PKI}/apiserver.key",
            f"--kubelet-client-certificate={PKI}/admin.crt",
            f"--kubelet-client-key={PKI}/admin.key",
            f"--kubelet-certificate-authority={PKI}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={PKI}/serviceaccount.key",
            f"--service-account-signing-key-file={PKI}/serviceaccount.key",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
        ),
        daemon("containerd", shutil.which("containerd") or "containerd", f"--config={STATE}/containerd.toml"),
    ]


def all_daemons() -> list[dict]:
    """Every program of the node. Those after `first` exit when they find no API server."""
    controller_manager = f"{PKI}/kube-controller-manager.kubeconfig"
    scheduler = f"{PKI}/kube-scheduler.kubeconfig"
    return [
        *first(),
        daemon(
            "kube-controller-manager",
            program(programs.KUBERNETES, "kube-controller-manager"),
            f"--kubeconfig={controller_manager}",
            f"--authentication-kubeconfig={controller_manager}",
            f"--authorization-kubeconfig={controller_manager}",
            f"--service-account-private-key-file={PKI}/serviceaccount.key",
            f"--root-ca-file={PKI}/ca.crt",
            "--use-service-account-credentials=true",
            # The default of 20 requests a second makes its start, and every wave of pods, wait for itself.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--leader-elect=false",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--bind-address=127.0.0.1",
        ),
        daemon(
            "kube-scheduler",
            program(programs.KUBERNETES, "kube-scheduler"),
            f"--kubeconfig={scheduler}",
            f"--authentication-kubeconfig={scheduler}",
            f"--authorization-kubeconfig={scheduler}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ),
        daemon(
            "kubelet",
            program(programs.KUBERNETES, "kubelet"),
            f"--config={STATE}/kubelet.json",
            f"--kubeconfig={PKI}/kubelet.kubeconfig",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_IP}",
        ),
        daemon(
            "kube-proxy",
            program(programs.KUBERNETES, "kube-proxy"),
            f"--kubeconfig={PKI}/kube-proxy.kubeconfig",
            "--proxy-mode=nftables",
            f"--cluster-cidr={POD_CIDR}",
            f"--hostname-override={NODE}",
            # Zero leaves the host's conntrack limits alone; they are not this namespace's to set.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ),
        daemon("coredns", program(programs.NODE, "coredns"), f"-conf={STATE}/Corefile"),
        daemon("volumes", sys.executable, "-B", f"{STATE}/tool/volumes.py"),
    ]


def daemon(name: str, *argv: object) -> dict:
    return {"name": name, "argv": [str(argument) for argument in argv]}


def program(module: programs.Module, name: str) -> Path:
    """Where the node sees a built binary."""
    return INSIDE / "programs" / programs.path(module, name).relative_to(programs.PROGRAMS)


def kubelet_config() -> dict:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{PKI}/kubelet.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": f"{STATE}/no-nameserver.conf",
        # Images cannot be pulled again, so none is ever removed for space.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
    }


def containerd_config(snapshotter: str) -> str:
    cni = next((folder for folder in CNI_FOLDERS if Path(folder, "ptp").exists()), CNI_FOLDERS[0])
    return f"""\
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = {"false" if has_capability(CAP_SYS_RESOURCE) else "true"}

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = "{STATE}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def has_capability(bit: int) -> bool:
    """Whether this process may do what capability `bit` allows; without CAP_SYS_RESOURCE runc cannot lower oom_score_adj."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> bit & 1)


def cni_config() -> dict:
    """One veth for each pod, everything routed by the node: no bridge, so no bridge netfilter module is needed."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": POD_CIDR}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {
        "cniVersion": "1.0.0",
        "name": NAME,
        "plugins": [{"type": "ptp", "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def corefile() -> str:
    return f""".:53 {{
    bind {NODE_IP}
    ready {NODE_IP}:{DNS_READY_PORT}
    errors
    cache 5
    kubernetes {DOMAIN} {{
        kubeconfig {PKI}/admin.kubeconfig
        ttl 5
    }}
}}
"""


def objects() -> list[tuple[str, dict]]:
    """What every cluster holds from the start, with its path in the API: the DNS service and the default StorageClass."""
    ports = [{"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))]
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**meta, "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": DNS_SERVICE_IP, "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
    }
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": volumes.STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": volumes.PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [
        ("/api/v1/namespaces/kube-system/services/kube-dns", service),
        ("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns", endpoints),
        (f"/apis/storage.k8s.io/v1/storageclasses/{volumes.STORAGE_CLASS}", storage_class),
    ]
