"""Tests of what the tool decides without a cluster; the cluster itself is tested by everything that runs on it."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import archive
import layout
import native
import programs
import shell
import volumes

CLAIM = {
    "metadata": {
        "name": "data",
        "namespace": "default",
        "uid": "7",
        "annotations": {volumes.CHOSEN_NODE: layout.NODE},
    },
    "spec": {
        "storageClassName": volumes.STORAGE_CLASS,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    },
}


class ProgramsTest(unittest.TestCase):
    def test_the_binary_of_a_package_is_named_as_go_names_it(self) -> None:
        self.assertEqual(programs.default_name("go.etcd.io/etcd/server/v3"), "server")
        self.assertEqual(programs.default_name("k8s.io/kubernetes/cmd/kubelet"), "kubelet")
        self.assertEqual(programs.default_name("./pause"), "pause")

    def test_every_module_pins_what_it_builds(self) -> None:
        for module in (*programs.NATIVE, *programs.WITH_DOCKER):
            self.assertTrue((module.source / "go.mod").exists(), module.name)
            self.assertTrue((module.source / "go.sum").exists(), module.name)

    def test_the_versions_told_to_the_linker_are_those_of_the_modules(self) -> None:
        kubernetes = (programs.KUBERNETES.source / "go.mod").read_text()
        self.assertIn(f"k8s.io/kubernetes v{programs.KUBERNETES_VERSION}\n", kubernetes)
        self.assertIn(f"helm.sh/helm/v3 v{programs.HELM_VERSION}\n", (programs.HELM.source / "go.mod").read_text())


class ArchiveTest(unittest.TestCase):
    def test_the_same_folder_gives_the_same_image(self) -> None:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / "root"
            folder.mkdir()
            (folder / "program").write_text("text")
            (folder / "link").symlink_to("program")
            written = []
            for name in ("first.tar", "second.tar"):
                os.utime(folder / "program")
                archive.write_image(Path(work) / name, "localhost/a:1", folder, {"Cmd": ["/program"]})
                written.append((Path(work) / name).read_bytes())
            self.assertEqual(written[0], written[1])


class VolumesTest(unittest.TestCase):
    def test_a_claim_gets_a_volume_once_its_consumer_is_scheduled(self) -> None:
        self.assertTrue(volumes.wants_volume(CLAIM))
        unscheduled = {**CLAIM, "metadata": {**CLAIM["metadata"], "annotations": {}}}
        self.assertFalse(volumes.wants_volume(unscheduled))
        self.assertFalse(volumes.wants_volume({**CLAIM, "spec": {**CLAIM["spec"], "volumeName": "bound"}}))
        self.assertFalse(volumes.wants_volume({**CLAIM, "spec": {**CLAIM["spec"], "storageClassName": "other"}}))

    def test_only_our_released_volumes_are_deleted(self) -> None:
        volume = volumes.volume_for(CLAIM)
        self.assertFalse(volumes.is_released({**volume, "status": {"phase": "Bound"}}))
        self.assertTrue(volumes.is_released({**volume, "status": {"phase": "Released"}}))
        foreign = {**volume, "metadata": {"name": "foreign"}, "status": {"phase": "Released"}}
        self.assertFalse(volumes.is_released(foreign))


class ShellTest(unittest.TestCase):
    def test_names_are_asked_of_dns_alone(self) -> None:
        with tempfile.TemporaryDirectory() as work:
            host = Path(work) / "nsswitch.conf"
            host.write_text("passwd: files\nhosts: mymachines resolve [!UNAVAIL=return] files\n")
            self.assertEqual(shell.nsswitch(host), "passwd: files\nhosts: files dns\n")
            self.assertEqual(shell.nsswitch(Path(work) / "absent"), "hosts: files dns\n")


class RecordTest(unittest.TestCase):
    def setUp(self) -> None:
        self.work = tempfile.TemporaryDirectory()
        self.addCleanup(self.work.cleanup)
        self.path = Path(self.work.name) / "node.json"
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.addCleanup(self.process.communicate)
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        self.record = {
            "pid": self.process.pid,
            "start_ticks": int(stat.rpartition(")")[2].split()[19]),
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        }

    def recorded(self, **changes: object) -> int | None:
        self.path.write_text(json.dumps({**self.record, **changes}))
        return native.recorded_process(self.path)

    def test_a_record_is_good_for_the_very_process_only(self) -> None:
        self.assertEqual(self.recorded(), self.process.pid)
        self.assertIsNone(self.recorded(start_ticks=self.record["start_ticks"] - 1))
        self.assertIsNone(self.recorded(boot_id="another boot"))
        self.assertIsNone(native.recorded_process(self.path.with_name("absent.json")))

    def test_a_dead_process_is_not_found(self) -> None:
        self.process.kill()
        # Not reaped yet: a zombie is as dead as one that is gone.
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self.assertIsNone(self.recorded())
        self.process.wait()
        self.assertIsNone(self.recorded())


if __name__ == "__main__":
    unittest.main()
