"""The objects of the chart under another release's name."""

import json
import subprocess

import yaml

from kube import ROOT

SYSTEM = "slipway-system"
CHART = ROOT / "charts" / "slipway"


def rendered(release: str, namespace: str, **values: object) -> list[dict]:
    """The objects of the chart with the images of the installed release."""
    installed = subprocess.run(["helm", "get", "values", "slipway", "-n", SYSTEM, "-o", "json"], capture_output=True, text=True, check=True)
    command = ["helm", "template", release, str(CHART), "-n", namespace, "-f", "-"]
    for name, value in values.items():
        command += ["--set-json", f"{name}={json.dumps(value)}"]
    text = subprocess.run(command, input=installed.stdout, capture_output=True, text=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]
