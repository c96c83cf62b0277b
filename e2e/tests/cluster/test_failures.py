"""Every injected fault is named in `Ready.reason` within 30 seconds, or as soon as the kubelet reports it."""

import pytest

import faults
import kube
import wait
from kube import kubectl

TOKEN = faults.RIGHT_TOKEN


def secret(namespace: str, name: str, value: str) -> None:
    kubectl("create", "secret", "generic", name, "-n", namespace, f"--from-literal=HF_TOKEN={value}")


def test_a_gated_repository_opens_with_the_right_token(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("gated", "slipway/gated", hub.endpoint), namespace)
    mdep = kube.until_reason("gated", namespace, "DownloadUnauthorized")
    assert "tokenSecretRef" in mdep["status"]["lastFailure"]["remedy"]

    secret(namespace, "wrong", "another-token")
    reference = '{{"spec":{{"model":{{"tokenSecretRef":{{"name":"{}"}}}}}}}}'
    kubectl("patch", "mdep", "gated", "-n", namespace, "--type=merge", "-p", reference.format("wrong"))
    wait.until("a pod has tried the wrong token", lambda: "wrong" in str(kube.items("deployment", namespace)))
    kube.until_reason("gated", namespace, "DownloadUnauthorized")

    kubectl("patch", "mdep", "gated", "-n", namespace, "--type=merge", "-p", reference.format("absent"))
    kube.until_reason("gated", namespace, "SecretMissing")

    secret(namespace, "right", TOKEN)
    kubectl("patch", "mdep", "gated", "-n", namespace, "--type=merge", "-p", reference.format("right"))
    kube.until_ready("gated", namespace)
    pods = kube.items("pod", namespace, "slipway.dev/model-deployment=gated")
    for pod in pods:
        runtime = next(c for c in pod["spec"]["containers"] if c["name"] == "runtime")
        assert "right" not in str(runtime), "the hub token is for the download container only"


def test_a_download_cut_in_the_middle_resumes(namespace: str, hub) -> None:
    # A broken connection takes along what its receiver has not read yet, so where it resumes is not known, and twice
    # is surer than once.
    cut = {"path": "model.safetensors", "kind": "cut", "times": 2, "afterBytes": 6_000_000}
    hub.arm("slipway/interrupted", faults=[cut])
    kube.apply(kube.model_deployment("interrupted", "slipway/interrupted", hub.endpoint), namespace)
    kube.until_ready("interrupted", namespace)
    ranges = [r["range"] for r in hub.requests("slipway/interrupted") if r.get("range")]
    starts = [int(r.removeprefix("bytes=").split("-")[0]) for r in ranges]
    assert starts and min(starts) > 0, ranges


def test_a_download_shows_its_progress(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("slow", "slipway/slow", hub.endpoint), namespace)

    def downloading() -> bool:
        status = kube.get("mdep", "slow", namespace).get("status", {})
        download = status.get("download", {})
        assert status.get("phase") == "Downloading" and 0 < download.get("percent", 0) < 100, status
        return download["bytesTotal"] > 9_000_000

    wait.until("the status shows a download under way", downloading, 60)
    ready = kube.until_ready("slow", namespace)
    assert "download" not in ready["status"]


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_is_named(fault: faults.Fault, namespace: str, hub) -> None:
    fault.inject(namespace)
    mdep = kube.until_reason(faults.NAME, namespace, fault.reason, fault.named_s_max)
    ready = kube.condition(mdep, "Ready")
    assert ready["message"], "the message says what happened and what to do"
    assert mdep["status"]["observedGeneration"] == mdep["metadata"]["generation"]


def test_a_bad_change_leaves_what_runs(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("steady", "slipway/tiny-trained", hub.endpoint), namespace)
    kube.until_ready("steady", namespace)
    kubectl("patch", "mdep", "steady", "-n", namespace, "--type=merge", "-p", '{"spec":{"model":{"huggingFace":{"repo":"slipway/no-such-model"}}}}')
    mdep = kube.until_reason("steady", namespace, "DownloadNotFound")
    assert kube.condition(mdep, "Available")["status"] == "True"
