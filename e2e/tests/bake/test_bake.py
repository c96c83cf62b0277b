"""An image with a model inside, built as examples/bake says: its token is in no layer, and it starts without a network."""

import json
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import wait
from kube import ROOT

# The binaries of the tests, as in the other lanes.
os.environ.setdefault("PROFILE", "dev")
import images  # noqa: E402

TOKEN = "hf_bakedSecretToken0123456789"
REPO = "slipway/tiny-trained"
RUNTIME = "localhost/slipway-runtime:to-bake"
BAKED = "localhost/baked:test"
UNSHARE, CHROOT = shutil.which("unshare"), shutil.which("chroot")
NOT_HERE = os.geteuid() != 0 or None in (shutil.which("buildah"), UNSHARE, CHROOT)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """A hub on this machine whose one repository needs the token."""
    root = tmp_path / "repositories"
    shutil.copytree(images.SHIPPED_MODEL, root / REPO)
    (root / "hub.json").write_text(json.dumps({"repositories": {REPO: {"token": TOKEN, "private": True}}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hub = subprocess.Popen([str(images.TARGET / "debug" / "hub"), "--root", str(root), "--listen", address])
    host, port = address.split(":")
    wait.until_listens(host, int(port))
    yield f"http://{address}"
    hub.kill()
    hub.wait()


def build(builder: images.Buildah, work: Path, arguments: dict[str, str]) -> None:
    """The runtime's image, and from it the one with the model."""
    base = images.Base.chosen()
    images.write_base(work / "base", work / "base.tar", base)
    builder.add(work / "base.tar")
    runtime = next(image for image in images.IMAGES if image.name == "runtime")
    images.stage(runtime, work / "context")
    builder.build(runtime, base, RUNTIME, work / "context")
    secret = work / "secret"
    secret.write_text(TOKEN)
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    options = ["--quiet", "--layers", "--isolation", "chroot", "--pull=false", "--secret", f"id=HF_TOKEN,src={secret}", *given]
    folder = ROOT / "examples" / "bake"
    builder.run("build", *options, "--tag", BAKED, "--file", str(folder / "Containerfile"), str(folder))


@pytest.mark.skipif(NOT_HERE, reason="images are built by root with buildah")
def test_a_baked_image_has_no_token_and_needs_no_network(tmp_path: Path, endpoint: str) -> None:
    builder = images.Buildah(tmp_path)
    arguments = {"RUNTIME": RUNTIME, "MODEL_NAME": REPO, "HF_ENDPOINT": endpoint, "QUANTIZATION": "ifq"}
    build(builder, tmp_path, arguments)
    builder.save(BAKED, tmp_path / "baked.tar")
    unpacked = tmp_path / "unpacked"
    with tarfile.open(tmp_path / "baked.tar") as archive:
        archive.extractall(unpacked, filter="data")
    for file in filter(Path.is_file, unpacked.rglob("*")):
        assert TOKEN.encode() not in file.read_bytes(), file

    manifest = json.loads((unpacked / "manifest.json").read_text())[0]
    weights, root = [], tmp_path / "root"
    for layer in manifest["Layers"]:
        with tarfile.open(unpacked / layer) as content:
            names = content.getnames()
            content.extractall(root, filter="tar")
        for name in names:
            assert "secrets" not in name, name
        weights.append([name for name in names if name.endswith(".safetensors")])
        if weights[-1]:
            assert all(name.startswith("models") for name in names), names
    assert [len(names) for names in weights if names] == [1], weights

    config = json.loads((unpacked / manifest["Config"]).read_text())["config"]
    environment = dict(variable.split("=", 1) for variable in config["Env"])
    assert environment["HF_HUB_OFFLINE"] == "1" and not {"HF_TOKEN", "HF_ENDPOINT"} & environment.keys()
    # No interface of this name space leads anywhere, and the user is the image's.
    inside = [UNSHARE, "--net", CHROOT, f"--userspec={config['User']}", str(root)]
    command = [*inside, *config["Entrypoint"], *config["Cmd"]]
    log = tmp_path / "log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        wait.until("the server is ready", lambda: "ready" in log.read_text() or server.poll() is not None, 120)
        assert server.poll() is None and "using the downloaded files" in log.read_text(), log.read_text()
    finally:
        server.kill()
        server.wait()
