"""`podwright run --wait`, describe and events with real containers, each command a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.kube.conftest import IMAGE, Command

pytestmark = pytest.mark.root

MANIFEST = f"""
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    command: [sh, -c, "sleep 1; echo fine > /conf/page; exec httpd -f -p 80 -h /conf"]
    readinessProbe: {{httpGet: {{path: /page, port: 80}}, periodSeconds: 1}}
    volumeMounts: [{{name: data, mountPath: /conf}}]
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: pages}}}}
"""


async def test_a_pod_is_waited_for_described_and_removed(podwright: Command, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(MANIFEST)
    (tmp_path / "pages").mkdir()
    done = await podwright(
        "run",
        "--quiet",
        "--wait",
        "--timeout",
        "50s",
        "--volume",
        f"pages={tmp_path}/pages",
        tmp_path / "web.yaml",
    )
    assert done.status == 0, done.err
    assert (tmp_path / "pages" / "page").read_text() == "fine\n"
    sandbox = done.out.split()[0]
    shown = yaml.safe_load((await podwright("describe", "web", "-o", "yaml")).out)
    (main,) = shown["status"]["containerStatuses"]
    assert main["ready"] is True and main["started"] is True
    text = (await podwright("describe", sandbox[:10])).out
    assert "Claim Name:  pages" in text and "/conf from data (rw)" in text
    told = (await podwright("events", "web")).out
    assert "Readiness probe failed" in told and "Container started" in told
    assert (await podwright("rm", "--force", "web")).status == 0
    assert (await podwright("describe", "web")).status == 1
