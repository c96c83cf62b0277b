"""The cluster's certificates, keys and kubeconfigs, made with openssl.

They live as long as the cluster's state. Knows which names and groups Kubernetes expects in them.
"""

import json
import os
import subprocess
from base64 import b64encode
from pathlib import Path

from layout import API_SERVICE_IP, API_URL, DOMAIN, NAME, NODE, NODE_IP

DAYS = 365
SUBJECTS = {
    "apiserver": "/CN=kube-apiserver",
    "admin": "/O=system:masters/CN=admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
    "kube-proxy": "/CN=system:kube-proxy",
}
NAMES = {
    "apiserver": f"DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.{DOMAIN},"
    f"DNS:localhost,IP:127.0.0.1,IP:{API_SERVICE_IP},IP:{NODE_IP}",
    "kubelet": f"DNS:{NODE},IP:{NODE_IP}",
}
OPENSSL_CONFIG = "[req]\nprompt = no\ndistinguished_name = name\n[name]\n"


def make(folder: Path) -> None:
    """Make the authority, a certificate for each subject with its kubeconfig, and the service account key."""
    folder.mkdir()
    (folder / "openssl.cnf").write_text(OPENSSL_CONFIG)
    certificate(folder, "ca", f"/CN={NAME}-ca", ["basicConstraints=critical,CA:TRUE"])
    for name, subject in SUBJECTS.items():
        extensions = ["extendedKeyUsage=serverAuth,clientAuth", f"subjectAltName={NAMES.get(name, 'DNS:localhost')}"]
        certificate(folder, name, subject, extensions)
        write_private(folder / f"{name}.kubeconfig", kubeconfig(folder, name))
    openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "serviceaccount.key")


def certificate(folder: Path, name: str, subject: str, extensions: list[str]) -> None:
    """Make NAME.key and NAME.crt, signed by the authority or, for the authority, by itself."""
    signer = [] if name == "ca" else ["-CA", "ca.crt", "-CAkey", "ca.key"]
    added = [argument for extension in extensions for argument in ("-addext", extension)]
    openssl(
        folder,
        *("req", "-x509", "-config", "openssl.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-days", str(DAYS), "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.crt"),
        *signer,
        *added,
    )


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def kubeconfig(folder: Path, name: str) -> str:
    """A kubeconfig with everything in it; JSON, which every YAML reader takes."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": {"server": API_URL, "certificate-authority-data": data(folder / "ca.crt")}}],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": data(folder / f"{name}.crt"),
                        "client-key-data": data(folder / f"{name}.key"),
                    },
                }
            ],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": name}}],
            "current-context": NAME,
        },
        indent=1,
    )


def data(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
