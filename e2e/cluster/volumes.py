"""The provisioner of the default StorageClass: a folder of the node for each claim.

A claim gets its volume when the scheduler has chosen a node for it, like on any cluster whose class waits
for its first consumer. The folder is open to every user, so a pod that is not root can write. A released
volume is deleted with its folder. Runs on the node; knows nothing of the other programs.
"""

import http.client
import shutil
import time
from pathlib import Path

from api import Api, ApiError
from layout import INSIDE, NAME, NODE

PROVISIONER = f"{NAME}.dev/folder"
STORAGE_CLASS = "standard"
FOLDERS = Path("/var/lib/slipway-volumes")
PERIOD_S = 0.5
CHOSEN_NODE = "volume.kubernetes.io/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


def main() -> None:
    FOLDERS.mkdir(exist_ok=True)
    api = Api(INSIDE / "state/pki")
    while True:
        try:
            provision(api)
            delete_released(api)
        except (OSError, http.client.HTTPException, ApiError) as error:
            print(f"volumes: {error}", flush=True)
        time.sleep(PERIOD_S)


def provision(api: Api) -> None:
    """Make a folder and a volume for each claim that waits for one."""
    for claim in api.get("/api/v1/persistentvolumeclaims")["items"]:
        if not wants_volume(claim):
            continue
        volume = volume_for(claim)
        folder = Path(volume["spec"]["local"]["path"])
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        try:
            api.call("POST", "/api/v1/persistentvolumes", volume)
        except ApiError as error:
            if error.status != http.client.CONFLICT:
                raise


def delete_released(api: Api) -> None:
    """Delete the volumes whose claim is gone, folder first."""
    for volume in api.get("/api/v1/persistentvolumes")["items"]:
        if is_released(volume):
            shutil.rmtree(volume["spec"]["local"]["path"], ignore_errors=True)
            api.call("DELETE", f"/api/v1/persistentvolumes/{volume['metadata']['name']}")


def wants_volume(claim: dict) -> bool:
    """Whether a claim is of our class, unbound, and its first consumer is scheduled."""
    annotations = claim["metadata"].get("annotations", {})
    return (
        claim["spec"].get("storageClassName") == STORAGE_CLASS
        and not claim["spec"].get("volumeName")
        and not claim["metadata"].get("deletionTimestamp")
        and CHOSEN_NODE in annotations
    )


def is_released(volume: dict) -> bool:
    """Whether a volume is ours and its claim was deleted."""
    ours = volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) == PROVISIONER
    deleting = volume["metadata"].get("deletionTimestamp")
    return ours and volume.get("status", {}).get("phase") == "Released" and not deleting


def volume_for(claim: dict) -> dict:
    """The volume of one claim, named by the claim's uid so that a repeated attempt makes the same one."""
    meta = claim["metadata"]
    name = f"pvc-{meta['uid']}"
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "local": {"path": str(FOLDERS / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }


if __name__ == "__main__":
    main()
