"""An operator for some namespaces needs no ClusterRole and leaves the others alone."""

import json
from collections.abc import Iterator

import pytest
import yaml

import chart
import kube
from chart import SYSTEM
from kube import Refused, kubectl



def rendered(namespace: str, *watched: str) -> list[dict]:
    """The objects of a release for some namespaces."""
    return chart.rendered("scoped", namespace, watchNamespaces=list(watched))


@pytest.fixture
def without_operator() -> Iterator[None]:
    """The operator of all namespaces is away during the test."""
    operator = ["-n", SYSTEM, "deployment/slipway-operator"]
    replicas = json.loads(kubectl("get", *operator, "-o", "json"))["spec"]["replicas"]
    kubectl("scale", *operator, "--replicas=0")
    yield
    kubectl("scale", *operator, f"--replicas={replicas}")
    kubectl("rollout", "status", *operator, "--timeout=90s")


def named(kind: str, documents: list[dict]) -> list[tuple[str, str]]:
    """Names and namespaces of the objects of one kind."""
    of_kind = [document["metadata"] for document in documents if document["kind"] == kind]
    return sorted((metadata["name"], metadata.get("namespace", "")) for metadata in of_kind)


def test_only_the_crd_and_its_reader_belong_to_the_cluster() -> None:
    scoped = rendered("system", "a", "b")
    for role in (document for document in scoped if document["kind"] == "ClusterRole"):
        assert [rule["resources"] for rule in role["rules"]] == [["customresourcedefinitions"]], role
    bound = named("RoleBinding", scoped)
    for name in ("scoped-operator", "scoped-gateway"):
        assert {(name, "a"), (name, "b")} <= set(bound), bound
        assert name not in dict(named("ClusterRoleBinding", scoped))
        assert name in dict(named("ClusterRoleBinding", rendered("system")))


@pytest.fixture
def other(namespace: str) -> Iterator[str]:
    """A second namespace."""
    name = f"{namespace}-other"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def test_an_operator_of_one_namespace_serves_it_and_no_other(namespace: str, other: str, hub, without_operator: None) -> None:
    of_release = "scoped-operator"
    objects = [document for document in rendered(other, namespace) if document["metadata"]["name"].startswith(of_release)]
    for document in objects:
        kubectl("apply", "-n", document["metadata"]["namespace"], "-f", "-", stdin=yaml.safe_dump(document))
    kubectl("rollout", "status", "-n", other, "deployment/scoped-operator", "--timeout=60s")
    mdep = kube.model_deployment("tiny", "slipway/tiny-trained", hub.endpoint)
    kube.apply(mdep, other)
    kube.apply(mdep, namespace)
    kube.until_ready("tiny", namespace)
    assert "conditions" not in kube.get("mdep", "tiny", other).get("status", {})
    account = f"system:serviceaccount:{other}:scoped-operator"
    for where in (["-n", other], ["--all-namespaces"]):
        with pytest.raises(Refused):
            kubectl("auth", "can-i", "list", "modeldeployments.slipway.dev", "--as", account, "--quiet", *where)
