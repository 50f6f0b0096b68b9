"""Manifests as clusters have them, on real containers: what is left in the directories of the node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kube.conftest import IMAGE, Command

pytestmark = pytest.mark.root

STREAM = f"""
apiVersion: v1
kind: Secret
metadata: {{name: login}}
data: {{password: aGk=}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: export}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 3
      volumes:
      - {{name: own, emptyDir: {{medium: Memory}}}}
      - {{name: login, secret: {{secretName: login}}}}
      initContainers:
      - name: early
        image: {IMAGE}
        imagePullPolicy: IfNotPresent
        restartPolicy: Always
        command: [sh, -c, "trap 'exit 7' TERM; sleep 1000 & wait"]
      containers:
      - name: main
        image: {IMAGE}
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "until [ -e /own/started ]; do sleep 0.1; done; cat /login"]
        volumeMounts:
        - {{name: own, mountPath: /own, subPath: deep/er}}
        - {{name: login, mountPath: /login, subPath: password}}
        lifecycle: {{postStart: {{exec: {{command: [touch, /own/started]}}}}}}
"""


def everything(*roots: Path) -> set[str]:
    found = {str(one) for root in roots for one in root.rglob("*")}
    return {one for one in found if not one.endswith((".lock", "-wal", "-shm"))}


async def test_a_pod_leaves_nothing_that_one_before_it_had_not_left(
    podwright: Command, tmp_path: Path
) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(STREAM)
    roots, left = (podwright.root, podwright.run_directory), []
    for _ in range(2):
        done = await podwright("run", manifest)
        assert (done.status, done.out.split("|")[-1].strip()) == (0, "hi"), done.err
        left.append(everything(*roots))
    assert left[1] - left[0] == set()
