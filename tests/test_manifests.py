"""launch/k8s-job.yaml and launch/sky.yaml, checked without a cluster or a cloud."""

import re
import shlex

import kubernetes_validate
import pytest
import yaml

from configs import load
from tests.jobs import ROOT

SERVICE, JOB = yaml.safe_load_all((ROOT / "launch/k8s-job.yaml").read_text())
SKY = ROOT / "launch/sky.yaml"


def torchrun(text):
    """Options of the torchrun command in a shell line, and the trainer's arguments."""
    words = shlex.split(text.replace("\\\n", " "))
    cut = words.index("train_gpt2.py")
    assert words[:2] == ["exec", "torchrun"]  # torchrun itself must get the signals
    assert words[cut + 1] == "--"
    return dict(word.lstrip("-").split("=", 1) for word in words[2:cut]), words[cut + 2 :]


@pytest.mark.parametrize("document", [SERVICE, JOB], ids=["service", "job"])
def test_kubernetes_takes_it(document):
    kubernetes_validate.validate(document, "1.32", strict=True)
    document["spec"]["no_such_key"] = 1  # the validation can fail
    try:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, "1.32", strict=True)
    finally:
        del document["spec"]["no_such_key"]


def test_pods_find_each_other_and_have_time_to_checkpoint():
    pod = JOB["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options, arguments = torchrun(container["args"][0])
    assert JOB["spec"]["completionMode"] == "Indexed"
    assert options["node_rank"] == "$JOB_COMPLETION_INDEX"
    assert int(options["nnodes"]) == JOB["spec"]["completions"] == JOB["spec"]["parallelism"]
    assert int(options["nproc_per_node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    service, job = SERVICE["metadata"]["name"], JOB["metadata"]["name"]
    assert options["master_addr"] == f"{job}-0.{service}"  # the name Kubernetes gives to pod 0
    assert pod["subdomain"] == service
    labels = JOB["spec"]["template"]["metadata"]["labels"]
    assert SERVICE["spec"]["selector"].items() <= labels.items()
    settings = {entry["name"]: entry.get("value") for entry in container["env"]}
    patience = int(settings["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    assert pod["terminationGracePeriodSeconds"] >= patience + 30
    memory = {v["name"] for v in pod["volumes"] if v.get("emptyDir", {}).get("medium") == "Memory"}
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert mounts["/dev/shm"] in memory
    assert load(arguments).log.dir.startswith(tuple(mounts))


def test_skypilot_takes_it():
    sky = pytest.importorskip("sky", reason="pip install skypilot")
    task = sky.Task.from_yaml(str(SKY))
    assert task.num_nodes == 2


def test_skypilot_file_runs_the_trainer():
    table = yaml.safe_load(SKY.read_text())
    options, arguments = torchrun(re.sub(r'"\$\(head.*?\)"', "first", table["run"]))
    assert options["node_rank"] == "$SKYPILOT_NODE_RANK"
    assert options["nnodes"] == "$SKYPILOT_NUM_NODES"
    words = [table["envs"]["ARGUMENTS"] if word == "$ARGUMENTS" else word for word in arguments]
    assert load(words).log.dir.startswith(tuple(table["file_mounts"]))
