"""The launch files, checked as far as possible without a cluster."""

import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bert_jax.cli.programs import parse_pretraining
from bert_jax.pretraining.checks import check

LAUNCH = Path(__file__).parents[1] / "examples" / "launch"
SHELL = sorted(LAUNCH.glob("*.sh"))
MANIFESTS = sorted(LAUNCH.glob("*.yaml"))
KUBERNETES = "1.33"
# Fields that indexed pods need to find each other; the schemas check all other fields.
REQUIRED = {
    "Service": ["metadata.name", "spec.clusterIP", "spec.selector.job-name", "spec.ports"],
    "Job": ["metadata.name", "spec.completionMode", "spec.completions", "spec.parallelism", "spec.template.spec"],
    "JobSet": ["metadata.name", "spec.replicatedJobs", "spec.failurePolicy.maxRestarts"],
}
NAME = {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$"}


def strict(*, required=(), **properties):
    """Returns the schema of an object that has these fields and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


# https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/: the fields that a training run may need.
JOBSET = strict(
    required=["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=strict(required=["name"], name=NAME, namespace=NAME, labels={}, annotations={}),
    spec=strict(
        required=["replicatedJobs"],
        failurePolicy=strict(
            maxRestarts={"type": "integer", "minimum": 0}, restartStrategy={"enum": ["Recreate", "BlockingRecreate"]}
        ),
        network=strict(
            enableDNSHostnames={"type": "boolean"}, subdomain=NAME, publishNotReadyAddresses={"type": "boolean"}
        ),
        suspend={"type": "boolean"},
        ttlSecondsAfterFinished={"type": "integer", "minimum": 0},
        replicatedJobs={
            "type": "array",
            "minItems": 1,
            "items": strict(
                required=["name", "template"],
                name=NAME,
                replicas={"type": "integer", "minimum": 1},
                template=strict(required=["spec"], metadata={}, spec={}),  # a Job's
            ),
        },
    ),
)
VERSIONS = {"Service": "v1", "Job": "batch/v1", "JobSet": "jobset.x-k8s.io/v1alpha2"}


def look_up(document, path):
    for name in path.split("."):
        assert name in document, f"{document.get('kind', '')} has no {path}"
        document = document[name]
    return document


def accepted(flags):
    """Returns the settings of the flags, read and checked as train.py does."""
    settings = parse_pretraining(flags)
    check(settings)
    assert settings.processes.distributed
    assert settings.run.resume
    assert settings.run.begin
    return settings


def flags_of(script):
    """Returns the arguments of train.py in a script; shell variables are replaced by a path."""
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
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", (LAUNCH / "slurm.sh").read_text(), re.MULTILINE))
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    devices = int(options["nodes"]) * int(options["gpus-per-node"])
    assert accepted(flags_of(LAUNCH / "slurm.sh")).training.batch_size % devices == 0


def validate(text):
    """Raises ValidationError if Kubernetes or JobSet would reject one of the documents."""
    for document in yaml.safe_load_all(text):
        if document["kind"] != "JobSet":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            continue
        jsonschema.validate(document, JOBSET)
        for group in document["spec"]["replicatedJobs"]:
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, **group["template"]}
            kubernetes_validate.validate(job, KUBERNETES, strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_manifests_match_the_schemas(manifest):
    validate(manifest.read_text())


@pytest.mark.parametrize(
    ("manifest", "correct", "wrong"),
    [
        ("job", "clusterIP: None", "clusterIp: None"),
        ("job", "port: 8476", "port: none"),
        ("job", "backoffLimit:", "backOffLimit:"),
        ("job", "completions: 4", "completions: four"),
        ("job", "volumeMounts:", "volumeMount:"),
        ("job", "containerPort:", "port:"),
        ("jobset", "maxRestarts:", "maxRestart:"),
        ("jobset", "maxRestarts: 1000", "maxRestarts: many"),
        ("jobset", "replicas:", "replica:"),
        ("jobset", "completionMode:", "completionmode:"),
        ("jobset", "claimName:", "claim:"),
    ],
)
def test_a_misspelled_key_is_rejected(manifest, correct, wrong):
    text = (LAUNCH / f"kubernetes-{manifest}.yaml").read_text()
    assert correct in text
    with pytest.raises(jsonschema.ValidationError):
        validate(text.replace(correct, wrong))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_manifests_have_the_fields_that_indexed_pods_need(manifest):
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
    """Checks an indexed job whose pods find process 0 at `host`."""
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"]
    pod = look_up(job, "template.spec")
    assert pod["restartPolicy"] in ("Never", "OnFailure")  # a Job accepts no others
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
