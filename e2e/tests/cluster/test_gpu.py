"""A GPU on a cluster that has none: the node is given `nvidia.com/gpu`, and the image holds a stand-in for the driver.

The stand-in runs the CUDA kernels on the CPU, so the whole path is the one of a card but for the card.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

import kube
import models
from conftest import client_of
from kube import EXAMPLES, ROOT, kubectl

CHATS = models.chats()[:2]


@pytest.fixture
def image() -> str:
    """The runtime's image with the stand-in; the build makes it where there is a C++ compiler."""
    names = subprocess.run([sys.executable, ROOT / "e2e/images.py", "--names"], check=True, capture_output=True, text=True)
    name = json.loads(names.stdout).get("runtimeStandin")
    if name is None:
        pytest.skip("no image with the stand-in for the CUDA driver: the build found no g++, or is a release build")
    return name


@pytest.fixture
def gpu() -> Iterator[None]:
    """One GPU on the node, as its scheduler sees it."""
    set_gpus = [sys.executable, ROOT / "e2e/cluster/cluster.py", "gpu"]
    subprocess.run([*set_gpus, "1"], check=True)
    yield
    subprocess.run([*set_gpus, "0"], check=True)


def one_gpu(hub, image: str) -> dict:
    """examples/one-gpu.yaml with the shipped model in place of one of 15 GB."""
    example = yaml.safe_load((EXAMPLES / "one-gpu.yaml").read_text())
    spec = example["spec"]
    spec["runtime"] = {"image": image}
    spec["model"]["huggingFace"] = {"repo": "slipway/tiny-trained", "endpoint": hub.endpoint}
    spec["engine"]["maxModelLen"] = 1024
    spec["cache"]["size"] = "1Gi"
    spec["resources"].update(cpu="500m", memory="2Gi")
    return example


def test_the_example_with_a_gpu_answers_with_the_references_tokens(namespace: str, hub, image: str, gpu: None) -> None:
    example = one_gpu(hub, image)
    kube.apply(example, namespace)
    name = example["metadata"]["name"]
    mdep = kube.until_ready(name, namespace, seconds=300)
    (pod,) = kube.items("pod", namespace, f"slipway.dev/model-deployment={name}")
    runtime = pod["spec"]["containers"][0]
    assert runtime["resources"]["limits"]["nvidia.com/gpu"] == "1"
    log = kubectl("logs", "-n", namespace, pod["metadata"]["name"])
    assert "Slipway stand-in sm_90" in log, log
    client = client_of(mdep).with_options(timeout=300)
    for chat in CHATS:
        answer = client.chat.completions.create(
            model=mdep["status"]["modelName"], messages=chat.openai_messages(), temperature=0
        )
        assert answer.choices[0].message.content == chat.answer
