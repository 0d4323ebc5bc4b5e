"""The manifests of KubeRay: names of fields by its types, and what makes them safe."""

import json
from typing import Any

import pytest
import yaml
from deployment.pins import RAY, ROOT

FOLDER = ROOT / "cluster" / "kuberay"
DEVICES = ("cpu", "gpu")
CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
JOB_FIELDS = {
    "entrypoint",
    "backoffLimit",
    "activeDeadlineSeconds",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
    "submitterPodTemplate",
    "rayClusterSpec",
}


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def pods(spec: dict) -> list[dict]:
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


@pytest.mark.parametrize("device", DEVICES)
def test_a_cluster_is_of_the_pinned_version_with_a_head_without_cpus(device: str):
    cluster = load(f"raycluster-{device}")
    spec, tag = cluster["spec"], {"cpu": "cpu", "gpu": "cu128"}[device]
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert set(spec) == CLUSTER_FIELDS
    assert spec["rayVersion"] == RAY
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert set(head) == {"rayStartParams", "template"}
    assert set(workers) == GROUP_FIELDS
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert json.loads(json.loads(head["rayStartParams"]["resources"])) == {"head": 1}
    assert json.loads(json.loads(workers["rayStartParams"]["resources"])) == {"background": 2}
    assert head["template"]["spec"]["containers"][0]["image"] == f"pcl:{RAY}-cpu"
    assert workers["template"]["spec"]["containers"][0]["image"] == f"pcl:{RAY}-{tag}"
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (device == "gpu")
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_job_brings_the_same_cluster_and_ends(device: str):
    job = load(f"rayjob-{device}")
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(spec) == JOB_FIELDS
    assert spec["rayClusterSpec"] == load(f"raycluster-{device}")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    assert spec["entrypoint"].startswith("python /pcl/jobs/train.py /pcl/configs/")
    assert "storage=/shared/runs" in spec["entrypoint"]


@pytest.mark.parametrize("device", DEVICES)
def test_every_pod_is_locked_and_reads_the_token_from_a_file(device: str):
    job = load(f"rayjob-{device}")["spec"]
    for pod in (*pods(job["rayClusterSpec"]), job["submitterPodTemplate"]["spec"]):
        assert pod["automountServiceAccountToken"] is False
        user = pod["securityContext"]
        assert user["runAsNonRoot"] is True
        assert user["runAsUser"] > 0
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"requests", "limits"} == set(container["resources"])
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN"] == "", "set, so that the operator does not put the token there"
        folder, _, key = environment["RAY_AUTH_TOKEN_PATH"].rpartition("/")
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts[folder]["readOnly"] is True
        assert key == "auth_token", "the key that KubeRay reads"
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        secret = volumes[mounts[folder]["name"]]["secret"]
        assert secret == {"secretName": "pcl-ray-token", "defaultMode": 0o440}
        assert job["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": secret["secretName"]}


@pytest.mark.parametrize("device", DEVICES)
def test_ray_pods_are_probed_where_no_token_is_asked_for_and_share_a_volume(device: str):
    claim, _ = yaml.safe_load_all((FOLDER / "common.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(load(f"raycluster-{device}")["spec"]):
        (container,) = pod["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        shared = next(mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/shared")
        assert volumes[shared]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_health_is_open_in_the_installed_ray():
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    assert "/api/healthz" in PUBLIC_EXACT_PATHS


def test_only_ray_pods_reach_all_ports_and_only_known_ones_the_dashboard():
    _, policy = yaml.safe_load_all((FOLDER / "common.yaml").read_text())
    assert policy["kind"] == "NetworkPolicy"
    ray_pods = {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    assert policy["spec"]["podSelector"] == ray_pods
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    everything, dashboard = policy["spec"]["ingress"]
    assert everything == {"from": [{"podSelector": ray_pods}]}
    assert dashboard["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert all("podSelector" in peer for peer in dashboard["from"])
    labels = load("rayjob-cpu")["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    assert {"podSelector": {"matchLabels": labels}} in dashboard["from"]
