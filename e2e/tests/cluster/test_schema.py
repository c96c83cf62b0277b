"""What the real API server takes and refuses."""

import json

import pytest
import yaml

import kube
from kube import EXAMPLES, Refused, kubectl

TINY = {"huggingFace": {"repo": "slipway/tiny-trained"}}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_taken(path, namespace: str) -> None:
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
    assert path.read_text().startswith("#"), "an example opens with what it shows"
    for document in documents:
        if document["kind"] == "Namespace":
            continue
        document["metadata"]["namespace"] = namespace
        kubectl(
            "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=yaml.safe_dump(document)
        )


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("ok", {"model": {}}, "exactly one of huggingFace and pvc"),
        ("ok", {"model": {**TINY, "pvc": {"claimName": "x"}}}, "exactly one of huggingFace and pvc"),
        ("ok", {"model": {"huggingFace": {"repo": "a/b/c"}}}, "owner/name"),
        ("ok", {"model": {"pvc": {"claimName": "x", "path": "../y"}}}, "without '..'"),
        ("ok", {"model": {"pvc": {"claimName": "x"}, "tokenSecretRef": {"name": "t"}}}, "tokenSecretRef is for"),
        ("ok", {"model": TINY, "engine": {"maxNumSeqs": 0}}, "maxNumSeqs"),
        ("ok", {"model": TINY, "engine": {"blockSize": 12}}, "blockSize"),
        ("ok", {"model": TINY, "engine": {"dtype": "int4"}}, "dtype"),
        ("ok", {"model": TINY, "engine": {"noSuchSetting": 1}}, "noSuchSetting"),
        ("ok", {"model": TINY, "env": [{"name": "HF_TOKEN", "value": "secret"}]}, "tokenSecretRef"),
        ("ok", {"model": TINY, "env": [{"name": "MODEL_PATH", "value": "/m"}]}, "the model is in spec.model"),
        ("ok", {"model": TINY, "env": [{"name": "SHUTDOWN_DELAY_SECONDS", "value": "1"}]}, "the operator sets"),
        ("ok", {"model": TINY, "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "env"),
        ("ok", {"model": TINY, "env": [{"name": "HUGGING_FACE_HUB_TOKEN", "value": "secret"}]}, "tokenSecretRef"),
        ("ok", {"model": TINY, "replicas": -1}, "replicas"),
        ("ok", {"model": TINY, "autoscaling": {"maxReplicas": 2, "scaleToZeroAfterSeconds": 60}}, "scaleToZeroAfterSeconds is for minReplicas 0"),
        ("ok", {"model": TINY, "autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas is at most maxReplicas"),
        ("ok", {"model": TINY, "autoscaling": {"minReplicas": 1}}, "maxReplicas"),
        ("ok", {"model": TINY, "autoscaling": {"maxReplicas": 2, "targetUtilizationPercent": 0}}, "targetUtilizationPercent"),
        ("ok", {"model": TINY, "podMetadata": {"labels": {"slipway.dev/x": "own"}}}, "the operator sets slipway.dev"),
        ("ok", {"model": TINY, "podMetadata": {"labels": {"app.kubernetes.io/name": "own"}}}, "the operator sets"),
        ("ok", {"model": TINY, "securityContext": {"runAsUser": 0}}, "runAsUser"),
        ("ok", {"model": TINY, "securityContext": {"assignedBy": "Platform", "fsGroup": 1}}, "for assignedBy Spec"),
        ("ok", {"model": TINY, "network": {"policy": "None", "clients": [{"podSelector": {}}]}}, "for policy Managed"),
        ("ok", {"model": TINY, "scheduling": {"affinity": {"nodeAfinity": {}}}}, "nodeAfinity"),
        ("ok", {"model": TINY, "scheduling": {"topologySpread": [{"maxSkew": 1}]}}, "topologyKey"),
        ("ok", {"model": {"pvc": {"claimName": "x"}}, "caBundle": {"name": "ca"}}, "caBundle is for huggingFace"),
        ("ok", {"model": TINY, "resources": {"memory": "much"}}, "memory"),
        ("ok", {"model": TINY, "cache": {"type": "Ephemeral", "claimName": "x"}}, "for type PVC"),
        ("Big", {"model": TINY}, "name"),
        ("x" * 41, {"model": TINY}, "at most 40"),
        ("3b", {"model": TINY}, "letter first"),
    ],
)
def test_a_bad_spec_is_refused_with_the_reason(name: str, spec: dict, message: str, namespace: str) -> None:
    document = {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    with pytest.raises(Refused, match=message):
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=yaml.safe_dump(document))


def test_scale_can_be_read_without_a_number_of_replicas(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("plain", "slipway/no-such-model", hub.endpoint), namespace)
    path = f"/apis/slipway.dev/v1alpha1/namespaces/{namespace}/modeldeployments/plain/scale"
    assert json.loads(kubectl("get", "--raw", path))["spec"]["replicas"] == 1


def test_cache_type_cannot_change(namespace: str, hub) -> None:
    mdep = kube.model_deployment(
        "fixed", "slipway/tiny-trained", hub.endpoint, replicas=0, cache={"type": "PVC", "size": "64Mi"}
    )
    kube.apply(mdep, namespace)
    mdep["spec"]["cache"]["type"] = "Ephemeral"
    with pytest.raises(Refused, match="cache.type cannot be changed"):
        kube.apply(mdep, namespace)


def test_the_operator_may_not_read_secrets_or_enter_pods() -> None:
    account = "system:serviceaccount:slipway-system:slipway-operator"
    for verb, resource in (("get", "secrets"), ("list", "secrets"), ("create", "pods/exec"), ("create", "pods")):
        with pytest.raises(Refused):
            kubectl("auth", "can-i", verb, resource, "--as", account, "--all-namespaces", "--quiet")
    kubectl("auth", "can-i", "list", "modeldeployments.slipway.dev", "--as", account, "--all-namespaces", "--quiet")
