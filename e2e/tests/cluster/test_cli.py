"""`kubectl slipway` on real pods, as a person types it."""

import json
import os
import pty
import subprocess

import pytest
import yaml

import kube
import models
import wait
from kube import HUB, ROOT, kubectl

CLI = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "kubectl-slipway"
REPO = "slipway/tiny-trained"
CHAT = models.chats()[0]


def slipway(*args: str, namespace: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the plugin; the caller looks at the exit status."""
    command = [str(CLI), *args, "-n", namespace]
    environment = {**os.environ, **variables}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180, env=environment)


def succeeds(*args: str, namespace: str, stdin: str | None = None) -> str:
    done = slipway(*args, namespace=namespace, stdin=stdin)
    assert done.returncode == 0, done
    return done.stdout


def fails(*args: str, namespace: str, **variables: str) -> str:
    """Its standard error."""
    done = slipway(*args, namespace=namespace, **variables)
    assert done.returncode != 0 and "panicked" not in done.stderr, done
    return done.stderr


def deploy(namespace: str, *args: str) -> subprocess.CompletedProcess[str]:
    done = slipway("deploy", REPO, f"--endpoint={HUB}", "--memory=1Gi", *args, namespace=namespace)
    assert done.returncode == 0, done
    return done


def test_from_deploy_to_delete(namespace: str) -> None:
    deployed = deploy(namespace, "--max-model-len=256", "--set=seed=7")
    assert "created ModelDeployment 'tiny-trained'" in deployed.stderr
    assert "is ready after" in deployed.stdout and "next:  kubectl slipway chat tiny-trained" in deployed.stdout
    spec = kube.get("mdep", "tiny-trained", namespace)["spec"]
    assert spec["engine"] == {"maxModelLen": 256, "seed": 7} and spec["resources"]["memory"] == "1Gi"

    row = succeeds("list", namespace=namespace).splitlines()[1].split()
    assert row[:6] == [namespace, "tiny-trained", "True", "Ready", "Ready", REPO] and row[6] == "1/1", row
    status = succeeds("status", "tiny-trained", "--watch", namespace=namespace)
    assert "Available" in status and "256 tokens" in status and "LlamaForCausalLM" in status, status
    assert succeeds("logs", "tiny-trained", "--tail=5", namespace=namespace).strip()
    assert "fetch" not in succeeds("logs", "tiny-trained", "--container=fetch", namespace=namespace).splitlines()[0:1]

    (role, question), *rest = CHAT.messages
    assert role == "user" and not rest, "the first chat of the reference is one question"
    greedy = ["chat", "tiny-trained", "--temperature=0"]
    assert succeeds(*greedy, "-m", question, namespace=namespace) == CHAT.answer + "\n"
    # Standard input is a conversation: what is forgotten does not change the next answer.
    conversation = succeeds(*greedy, namespace=namespace, stdin=f"{question}\n/clear\n{question}\n/exit\n")
    assert conversation == (CHAT.answer + "\n") * 2

    bench = succeeds("bench", "tiny-trained", "--streams=2", "--seconds=3", "--max-tokens=16", namespace=namespace)
    assert "error" not in bench and int(bench.split()[1]) > 0 and "p99" in bench, bench

    # The same again with another value is a change; a wrong name and a wrong value are named before anything is sent.
    changed = deploy(namespace, "--max-model-len=128", "--replicas=1")
    assert "changed ModelDeployment" in changed.stderr
    kubectl("delete", "mdep", "tiny-trained", "-n", namespace)
    assert "there are no ModelDeployments" in slipway("list", namespace=namespace).stderr


def test_progress_is_a_bar_on_a_terminal(namespace: str) -> None:
    primary, secondary = pty.openpty()
    command = [str(CLI), "deploy", "slipway/slow", f"--endpoint={HUB}", "-n", namespace]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=secondary, text=True)
    os.close(secondary)
    shown = b""
    while True:
        try:
            piece = os.read(primary, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        shown += piece
    assert process.wait(180) == 0, shown
    assert b"downloading [" in shown and b"\r\x1b[K" in shown, shown


def test_what_a_person_did_wrong(namespace: str) -> None:
    assert "there are no ModelDeployments" in slipway("list", namespace=namespace).stderr
    error = fails("deploy", "slipway/gated", f"--endpoint={HUB}", namespace=namespace)
    assert "DownloadUnauthorized" in error and "Remedy:" in error and "next:  kubectl slipway status gated" in error, error
    assert "remedy:" in succeeds("status", "gated", namespace=namespace)
    assert "DownloadUnauthorized" in succeeds("logs", "gated", namespace=namespace)
    assert "no ready replica" in fails("chat", "gated", "-m", "hello", namespace=namespace)
    error = fails("status", "gatde", namespace=namespace)
    assert "there is no ModelDeployment 'gatde'" in error and f"status gated -n {namespace}" in error, error
    assert "did you mean maxModelLen" in fails("deploy", REPO, "--set=maxModelLength=5", namespace=namespace)
    error = fails("deploy", REPO, "--set=replicas=1", namespace="no-such-namespace")
    assert "there is no namespace" in error and "kubectl create namespace" in error, error


def test_cluster_and_rights(namespace: str, tmp_path) -> None:
    missing = fails("list", namespace=namespace, KUBECONFIG=str(tmp_path / "missing"), HOME=str(tmp_path))
    assert "no cluster is configured" in missing and "KUBECONFIG" in missing, missing
    config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    config["clusters"][0]["cluster"] = {"server": "http://127.0.0.1:1"}
    silent = tmp_path / "silent"
    silent.write_text(json.dumps(config))
    error = fails("list", namespace=namespace, KUBECONFIG=str(silent))
    assert "does not answer" in error and "kubectl cluster-info" in error, error

    kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": kubectl("create", "token", "nobody", "-n", namespace).strip()}
    weak = tmp_path / "weak"
    weak.write_text(json.dumps(config))
    error = fails("list", namespace=namespace, KUBECONFIG=str(weak))
    assert "you have no right to list modeldeployments.slipway.dev" in error, error
    assert f"kubectl auth can-i list modeldeployments.slipway.dev -n {namespace}" in error, error
    config["users"][0]["user"] = {"token": "wrong"}
    weak.write_text(json.dumps(config))
    assert "does not accept the login" in fails("list", namespace=namespace, KUBECONFIG=str(weak))


def test_a_model_with_keys(namespace: str) -> None:
    kubectl("create", "secret", "generic", "keys", "-n", namespace, "--from-literal=OPENAI_API_KEYS=alpha,beta")
    deploy(namespace, "--name=private", "--api-keys-secret=keys")
    question = ["chat", "private", "--max-tokens=2", "-m", "hello"]
    assert succeeds(*question, namespace=namespace).strip()
    assert succeeds(*question, "--api-key=beta", namespace=namespace).strip()
    assert "--api-key" in fails(*question, "--api-key=wrong", namespace=namespace)


def test_a_runpod_block_serves(namespace: str) -> None:
    block = "docker run --gpus all -e MODEL_NAME=slipway/tiny-trained -e MAX_MODEL_LEN=64 -e HF_TOKEN=hf_secret \\\n"
    block += "  -e OPENAI_SERVED_MODEL_NAME_OVERRIDE=mine -e TRUST_REMOTE_CODE=1 worker"
    done = slipway("import-runpod", "-", "--gpus=0", "--name=pasted", namespace=namespace, stdin=block)
    assert done.returncode == 0 and "hf_secret" not in done.stdout + done.stderr, done
    manifest = yaml.safe_load(done.stdout)
    manifest["spec"]["model"]["huggingFace"]["endpoint"] = HUB
    command = next(line[1:].split() for line in done.stdout.splitlines() if "kubectl create secret" in line)
    assert command[:4] == ["kubectl", "create", "secret", "generic"]
    kubectl(*command[1:-1], "--from-literal=HF_TOKEN=any")
    kube.apply(manifest, namespace)
    assert kube.until_ready("pasted", namespace)["status"]["modelName"] == "mine"


@pytest.mark.parametrize("place", ["here", "pod"])
def test_fit(namespace: str, place: str) -> None:
    where = []
    if place == "pod":
        operator = kube.get("deployment", "slipway-operator", "slipway-system")
        container = operator["spec"]["template"]["spec"]["containers"][0]
        image = next(e["value"] for e in container["env"] if e["name"] == "RUNTIME_IMAGE")
        where = ["--in-cluster", f"--image={image}"]
    text = succeeds("fit", REPO, f"--endpoint={HUB}", *where, namespace=namespace)
    assert "LlamaForCausalLM" in text and "KV per token" in text and "H100" in text and "(all)" in text, text
    wait.until("no pod is left", lambda: not kube.items("pod", namespace), 60)
    error = fails("fit", "slipway/no-such-model", f"--endpoint={HUB}", *where, namespace=namespace)
    assert "DownloadNotFound" in error, error
