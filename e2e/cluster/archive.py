"""Container images written without a builder: one layer from a folder, as a docker-archive tar.

Format: image-spec v1.2 of github.com/moby/docker-image-spec. The same folder gives the same bytes.
"""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(target: Path, tag: str, folder: Path, config: dict) -> None:
    """Write the image `tag` whose root is `folder`; `config` is the image's container configuration."""
    layer = layer_of(folder)
    layer_digest = hashlib.sha256(layer).hexdigest()
    image = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    ).encode()
    config_name = f"{hashlib.sha256(image).hexdigest()}.json"
    layer_name = f"{layer_digest}.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": [layer_name]}]).encode()
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        for name, content in (("manifest.json", manifest), (config_name, image), (layer_name, layer)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    partial.rename(target)


def layer_of(folder: Path) -> bytes:
    """The tar of a folder with root as owner, no times, and names in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, str(path.relative_to(folder)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            if entry.isreg():
                with open(path, "rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    return buffer.getvalue()
