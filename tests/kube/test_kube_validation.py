"""What the API server would refuse, rule by rule; Pods that are right are in the recordings and streams."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.kube.manifests import manifest


def faults(container: dict[str, Any] | None = None, **spec: Any) -> str:
    tree = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", **spec.pop("metadata", {})},
        "spec": {"containers": [{"name": "main", "image": "x:1", **(container or {})}], **spec},
    }
    with pytest.raises(InvalidArgument) as caught:
        manifest.from_dict(tree, "x")
    return str(caught.value)


EXEC = {"exec": {"command": ["true"]}}
HUGE = {"cpu": "1", "hugepages-2Mi": "4Mi"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"dnsConfig": {"nameservers": ["1.1.1.1"] * 4}}, "spec.dnsConfig.nameservers: has more than 3"),
        (
            {"dnsConfig": {"nameservers": ["dns.test"]}},
            "spec.dnsConfig.nameservers[0]: 'dns.test' is not an IP",
        ),
        ({"dnsConfig": {"searches": ["a b"]}}, "spec.dnsConfig.searches[0]: 'a b' is not a DNS name"),
        ({"dnsConfig": {"options": [{"value": "1"}]}}, "spec.dnsConfig.options[0].name: is needed"),
        ({"hostAliases": [{"ip": "x", "hostnames": ["a"]}]}, "spec.hostAliases[0].ip: 'x' is not an IP"),
        ({"hostAliases": [{"ip": "::1", "hostnames": ["A"]}]}, "spec.hostAliases[0].hostnames[0]: 'A'"),
        ({"hostname": "a.b"}, "spec.hostname: 'a.b' is not a DNS label"),
        ({"subdomain": "A"}, "spec.subdomain: 'A' is not a DNS label"),
        (
            {"hostnameOverride": "a", "setHostnameAsFQDN": True},
            "spec.hostnameOverride: cannot be combined with",
        ),
        ({"hostnameOverride": "a" * 65}, "is no DNS name of 64 bytes"),
        (
            {"serviceAccount": "a", "serviceAccountName": "b"},
            "spec.serviceAccount: 'a' is not serviceAccountName",
        ),
        ({"serviceAccountName": "A"}, "spec.serviceAccountName: 'A' is not a DNS name"),
        ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds: 0 is not between 1 and"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds: -1 is less than 0"),
        (
            {"securityContext": {"sysctls": [{"name": "A", "value": "1"}]}},
            "sysctls[0].name: 'A' is not the name",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "a", "value": "1"}] * 2}},
            "sysctls[1].name: 'a' comes twice",
        ),
        (
            {"securityContext": {"fsGroupChangePolicy": "Never"}},
            "fsGroupChangePolicy: 'Never' is none of Always",
        ),
        ({"securityContext": {"fsGroup": -1}}, "-1 is not a user or group id"),
        ({"resources": {"limits": {"nvidia.com/gpu": 1}}}, "spec.resources.limits[nvidia.com/gpu]: is not"),
        ({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}, "requests[cpu]: 2 is more than"),
        ({"overhead": {"cpu": "x"}}, "spec.overhead.limits[cpu]: 'x' is not a quantity"),
        ({"metadata": {"labels": {"a": "b c"}}}, "metadata.labels[a]: 'b c' is no label's value"),
        ({"metadata": {"labels": {"-a": "b"}}}, "metadata.labels[-a]: '-a' is no key"),
        ({"metadata": {"annotations": {"a": "x" * (1 << 18)}}}, "metadata.annotations: are 262145 bytes"),
        (
            {"readinessGates": [{"conditionType": "a b"}]},
            "readinessGates[0].conditionType: 'a b' is no key",
        ),
        (
            {"ephemeralContainers": [{"name": "d", "image": "x", "targetContainerName": "z"}]},
            "spec.ephemeralContainers[0].targetContainerName: there is no container 'z'",
        ),
        (
            {"ephemeralContainers": [{"name": "d", "image": "x", "ports": [{"containerPort": 1}]}]},
            "spec.ephemeralContainers[0].ports: is not supported: an ephemeral container cannot have it",
        ),
        (
            {"initContainers": [{"name": "i", "image": "x", "readinessProbe": EXEC}]},
            "spec.initContainers[0].readinessProbe: an init container that ends cannot have it",
        ),
        (
            {"initContainers": [{"name": "i", "image": "x", "lifecycle": {"preStop": EXEC}}]},
            "spec.initContainers[0].lifecycle.preStop: an init container that ends cannot have it",
        ),
    ],
)
def test_pods(spec: dict[str, Any], words: str) -> None:
    assert words in faults(**spec)


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"livenessProbe": {}}, "livenessProbe: one of exec, httpGet, tcpSocket, grpc is needed"),
        ({"livenessProbe": {**EXEC, "grpc": {"port": 1}}}, "is needed, not exec and grpc"),
        ({"livenessProbe": {"exec": {}}}, "livenessProbe.exec.command: is needed"),
        ({"livenessProbe": {**EXEC, "successThreshold": 2}}, "livenessProbe.successThreshold: must be 1"),
        ({"livenessProbe": {**EXEC, "periodSeconds": -1}}, "livenessProbe.periodSeconds: -1 is not between"),
        ({"livenessProbe": {"httpGet": {"port": "Web"}}}, "'Web' is neither a port nor the name of one"),
        ({"livenessProbe": {"httpGet": {"port": 70000}}}, "livenessProbe.httpGet.port: 70000 is not a port"),
        ({"livenessProbe": {"httpGet": {"port": 1, "scheme": "http"}}}, "'http' is none of HTTP, HTTPS"),
        (
            {"livenessProbe": {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": "c"}]}}},
            "httpHeaders[0].name: 'a b' is not the name of a header",
        ),
        ({"livenessProbe": {"httpGet": {"port": 1, "protocol": "HTTP2"}}}, "protocol: is not supported"),
        ({"livenessProbe": {"grpc": {"port": 0}}}, "livenessProbe.grpc.port: 0 is not a port"),
        (
            {"readinessProbe": {**EXEC, "terminationGracePeriodSeconds": 5}},
            "readinessProbe.terminationGracePeriodSeconds: a readiness probe stops nothing",
        ),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}, "sleep.seconds: 31 is not between 0 and"),
        ({"lifecycle": {"postStart": {}}}, "lifecycle.postStart: one of exec, httpGet, tcpSocket, sleep"),
        ({"lifecycle": {"stopSignal": "SIGNONE"}}, "lifecycle.stopSignal: 'SIGNONE' is not a signal"),
        ({"ports": [{"containerPort": 1, "name": "Web"}]}, "ports[0].name: 'Web' is no name of a port"),
        ({"ports": [{"containerPort": n, "name": "a"} for n in (1, 2)]}, "ports[1].name: 'a' is taken"),
        ({"ports": [{"containerPort": n, "hostPort": 9} for n in (1, 2)]}, "ports[1].hostPort: 9 is taken"),
        ({"ports": [{"containerPort": 1, "hostIP": "x"}]}, "ports[0].hostIP: 'x' is not an IP address"),
        ({"env": [{"name": "A=", "value": "x"}]}, "env[0].name: 'A=' is not a name"),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "env[0].valueFrom: one source is needed, not 0"),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]},
            "env[0].valueFrom.fieldRef.fieldPath: 'status.phase' cannot be referred to",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]},
            "resourceFieldRef.resource: 'limits.gpu' cannot be referred to",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}]},
            "secretKeyRef: name and key are needed",
        ),
        (
            {
                "env": [
                    {"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}}
                ]
            },
            "fileKeyRef.volumeName: there is no volume 'v'",
        ),
        ({"envFrom": [{"prefix": "A_"}]}, "envFrom[0]: one of configMapRef and secretRef is needed"),
        ({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}, "huge pages need cpu or memory beside them"),
        ({"resources": {"limits": {"hugepages-x": "4Mi"}}}, "names no size of huge pages"),
        (
            {"resources": {"limits": HUGE, "requests": {"hugepages-2Mi": "2Mi"}}},
            "requests[hugepages-2Mi]: huge pages are not shared out",
        ),
        ({"resources": {"claims": [{"name": "gpu"}]}}, "resources.claims: is not supported"),
        ({"restartPolicy": "Sometimes"}, "restartPolicy: 'Sometimes' is none of Always, OnFailure, Never"),
        ({"restartPolicyRules": [{"action": "Restart"}]}, "restartPolicy: is needed where there are"),
        (
            {"restartPolicy": "Never", "restartPolicyRules": [{"action": "Stop"}]},
            "restartPolicyRules[0].action: 'Stop' is none of Restart",
        ),
        (
            {"resizePolicy": [{"resourceName": "disk", "restartPolicy": "NotRequired"}]},
            "'disk' is none of cpu",
        ),
        ({"securityContext": {"procMount": "Unmasked"}}, "procMount: Unmasked needs hostUsers: false"),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}},
            "localhostProfile: '../x' must be relative",
        ),
        (
            {"volumeDevices": [{"name": "v", "devicePath": "/d"}]},
            "volumeDevices: is not supported: nothing here",
        ),
    ],
)
def test_containers(container: dict[str, Any], words: str) -> None:
    assert words in faults(container)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"emptyDir": {"medium": "Disk"}}, "emptyDir.medium: 'Disk' is none of Memory, HugePages"),
        ({"emptyDir": {"medium": "HugePages-x"}}, "emptyDir.medium: 'HugePages-x' is none"),
        ({"emptyDir": {"sizeLimit": "-1"}}, "emptyDir.sizeLimit: -1 is negative"),
        ({"configMap": {"name": ""}}, "configMap.name: is needed"),
        ({"configMap": {"name": "c", "defaultMode": 644}}, "644 is no file mode between 0 and 0777"),
        ({"configMap": {"name": "c", "items": [{"key": "k", "path": "/p"}]}}, "items[0].path: '/p' must be"),
        ({"configMap": {"name": "c", "items": [{"key": "k", "path": "..p"}]}}, "'..p' begins with two dots"),
        ({"secret": {}}, "secret.secretName: is needed"),
        (
            {"downwardAPI": {"items": [{"path": "p"}]}},
            "items[0]: one of fieldRef and resourceFieldRef is needed",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "status.podIP"}}]}},
            "fieldPath: 'status.podIP' cannot be in a volume",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
            "resourceFieldRef.containerName: is needed in a volume",
        ),
        (
            {"projected": {"sources": [{"configMap": {"name": "a"}, "secret": {"name": "b"}}]}},
            "projected.sources[0]: one source is needed, not 2",
        ),
        ({"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}}, "clusterTrustBundle: is not"),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}},
            "expirationSeconds: 5 is not between 600",
        ),
        ({"image": {}}, "image.reference: is needed"),
        ({"image": {"reference": "x", "pullPolicy": "always"}}, "image.pullPolicy: 'always' is none of"),
        ({"emptyDir": {}, "hostPath": {"path": "/x"}}, "has more than one source: emptyDir, hostPath"),
        (
            {"persistentVolumeClaim": {"claimName": "c"}},
            "bind a directory of this host to it (run --volume NAME=PATH)",
        ),
    ],
)
def test_volumes(source: dict[str, Any], words: str) -> None:
    assert words in faults(volumes=[{"name": "v", **source}])


def test_containers_must_find_room_in_the_pod() -> None:
    whole = {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}
    asks = {"resources": {"requests": {"cpu": "1500m", "memory": "1"}, "limits": {"memory": "2Gi"}}}
    found = faults(asks, resources=whole)
    assert "spec.resources.requests[cpu]: is less than the containers request together" in found
    assert "spec.containers[0].resources.limits[memory]: is more than the pod's limit" in found


def test_a_host_port_is_the_containers_on_the_hosts_network() -> None:
    ports = {"ports": [{"containerPort": 80, "hostPort": 81}]}
    assert "hostPort: must be containerPort with hostNetwork" in faults(ports, hostNetwork=True)


def test_a_mount_of_an_image_has_no_propagation() -> None:
    mount = {"name": "v", "mountPath": "/v", "mountPropagation": "HostToContainer"}
    volume = {"name": "v", "image": {"reference": "x"}}
    assert "an image's volume has none" in faults({"volumeMounts": [mount]}, volumes=[volume])
