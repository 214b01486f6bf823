"""The launch files, as far as a machine without a cluster can check them."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from bert_jax.tools.settings import check, read_settings

LAUNCH = Path(__file__).parents[1] / "examples" / "launch"
SHELL = sorted(LAUNCH.glob("*.sh"))
MANIFESTS = sorted(LAUNCH.glob("*.yaml"))
# What Kubernetes and JobSet refuse to do without, and what indexed pods need to find one another.
REQUIRED = {
    "Service": ["metadata.name", "spec.clusterIP", "spec.selector.job-name", "spec.ports"],
    "Job": ["metadata.name", "spec.completionMode", "spec.completions", "spec.parallelism", "spec.template.spec"],
    "JobSet": ["metadata.name", "spec.replicatedJobs", "spec.failurePolicy.maxRestarts"],
}
VERSIONS = {"Service": "v1", "Job": "batch/v1", "JobSet": "jobset.x-k8s.io/v1alpha2"}


def look_up(document, path):
    for name in path.split("."):
        assert name in document, f"{document.get('kind', '')} lacks {path}"
        document = document[name]
    return document


def accepted(flags):
    """Lets train.py's own parser and checks read the flags."""
    settings = read_settings(flags, description="")
    check(settings)
    assert settings.processes.distributed
    assert settings.run.resume
    return settings


def flags_of(script):
    """What stands behind train.py in a script, the shell's variables replaced by something."""
    text = re.sub(r"\\\n", " ", script.read_text())
    (line,) = (line for line in text.splitlines() if "train.py" in line and not line.startswith("#"))
    words = shlex.split(line.split("train.py", 1)[1].split("||")[0])
    return [re.sub(r"\$\w+|~", "/x", word) for word in words]


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_scripts_are_valid_and_their_flags_exist(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111
    accepted(flags_of(script))


def test_slurm_starts_one_task_for_each_gpu():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", (LAUNCH / "slurm.sh").read_text(), re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    devices = int(asked["nodes"]) * int(asked["gpus-per-node"])
    assert accepted(flags_of(LAUNCH / "slurm.sh")).training.batch_size % devices == 0


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_manifests_hold_what_kubernetes_requires(manifest):
    documents = {document["kind"]: document for document in yaml.safe_load_all(manifest.read_text())}
    for kind, document in documents.items():
        assert document["apiVersion"] == VERSIONS[kind]
        for path in REQUIRED[kind]:
            look_up(document, path)
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", document["metadata"]["name"])
    if "JobSet" in documents:
        name = documents["JobSet"]["metadata"]["name"]
        (group,) = look_up(documents["JobSet"], "spec.replicatedJobs")
        assert group["replicas"] == 1
        job, host = group["template"]["spec"], f"{name}-{group['name']}-0-0.{name}"
    else:
        job, service = documents["Job"]["spec"], documents["Service"]
        name = documents["Job"]["metadata"]["name"]
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["selector"] == {"job-name": name}
        assert look_up(job, "template.spec.subdomain") == service["metadata"]["name"]
        host = f"{name}-0.{service['metadata']['name']}"
    check_job(job, host)


def check_job(job, host):
    """An indexed job whose pods find process 0 at `host`."""
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"]
    pod = look_up(job, "template.spec")
    assert pod["restartPolicy"] in ("Never", "OnFailure")  # a Job takes no other
    (container,) = pod["containers"]
    assert {"name", "image", "command", "args"} <= container.keys()
    assert container["command"][-1] == "train.py"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert "--process-id=$(JOB_COMPLETION_INDEX)" in container["args"]
    settings = accepted([flag.replace("$(JOB_COMPLETION_INDEX)", "0") for flag in container["args"]])
    port = container["ports"][0]["containerPort"]
    assert settings.processes.coordinator == f"{host}:{port}"
    assert settings.processes.num_processes == job["completions"]
    devices = job["completions"] * container["resources"]["limits"]["nvidia.com/gpu"]
    assert settings.training.batch_size % devices == 0


def test_the_page_names_every_file():
    page = (LAUNCH / "README.md").read_text()
    for file in (*SHELL, *MANIFESTS):
        assert f"[{file.name}]({file.name})" in page
