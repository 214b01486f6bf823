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
RAY = LAUNCH / "ray"
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
# https://ray-project.github.io/kuberay/reference/api/: the fields that a training run may need.
RAY_GROUP = {"rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}}, "template": {}}
COUNT = {"type": "integer", "minimum": 0}
RAY_JOB = strict(
    required=["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=strict(required=["name"], name=NAME, namespace=NAME, labels={}, annotations={}),
    spec=strict(
        required=["entrypoint", "rayClusterSpec"],
        entrypoint={"type": "string"},
        backoffLimit=COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        suspend={"type": "boolean"},
        rayClusterSpec=strict(
            required=["headGroupSpec", "workerGroupSpecs"],
            rayVersion={"type": "string"},
            headGroupSpec=strict(required=["rayStartParams", "template"], **RAY_GROUP),
            workerGroupSpecs={
                "type": "array",
                "items": strict(
                    required=["groupName", "rayStartParams", "template"],
                    groupName=NAME,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    **RAY_GROUP,
                ),
            },
        ),
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
        if document["kind"] == "RayJob":
            jsonschema.validate(document, RAY_JOB)
            cluster = document["spec"]["rayClusterSpec"]
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, **group["template"]}
                kubernetes_validate.validate(pod, KUBERNETES, strict=True)
            continue
        if document["kind"] != "JobSet":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            continue
        jsonschema.validate(document, JOBSET)
        for group in document["spec"]["replicatedJobs"]:
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, **group["template"]}
            kubernetes_validate.validate(job, KUBERNETES, strict=True)


@pytest.mark.parametrize("manifest", [*MANIFESTS, RAY / "rayjob.yaml"], ids=lambda path: path.name)
def test_manifests_match_the_schemas(manifest):
    validate(manifest.read_text())


@pytest.mark.parametrize(
    ("manifest", "correct", "wrong"),
    [
        ("kubernetes-job", "clusterIP: None", "clusterIp: None"),
        ("kubernetes-job", "port: 8476", "port: none"),
        ("kubernetes-job", "backoffLimit:", "backOffLimit:"),
        ("kubernetes-job", "completions: 4", "completions: four"),
        ("kubernetes-job", "volumeMounts:", "volumeMount:"),
        ("kubernetes-job", "containerPort:", "port:"),
        ("kubernetes-jobset", "maxRestarts:", "maxRestart:"),
        ("kubernetes-jobset", "maxRestarts: 1000", "maxRestarts: many"),
        ("kubernetes-jobset", "replicas:", "replica:"),
        ("kubernetes-jobset", "completionMode:", "completionmode:"),
        ("kubernetes-jobset", "claimName:", "claim:"),
        ("ray/rayjob", "workerGroupSpecs:", "workerGroups:"),
        ("ray/rayjob", 'num-cpus: "0"', "num-cpus: 0"),
        ("ray/rayjob", "minReplicas: 4", "minReplicas: four"),
        ("ray/rayjob", "mountPath:", "path:"),
    ],
)
def test_a_misspelled_key_is_rejected(manifest, correct, wrong):
    text = (LAUNCH / f"{manifest}.yaml").read_text()
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


def check_ray_command(command):
    """Checks a command of train_on_ray.py; returns the launcher's own options."""
    script, *words = shlex.split(command)[1:]
    assert Path(script).name == "train_on_ray.py"
    program = words.index("pretrain")
    options = dict(zip(words[:program:2], words[1:program:2], strict=True))
    settings = accepted([*words[program + 1 :], "--distributed", "--resume", "--begin"])  # as the launcher adds
    assert settings.training.batch_size % (int(options["--workers"]) * int(options["--gpus"])) == 0
    return options


def test_a_ray_job_asks_for_the_machines_of_its_cluster():
    spec = yaml.safe_load((RAY / "rayjob.yaml").read_text())["spec"]
    options = check_ray_command(spec["entrypoint"])
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert {int(options["--workers"])} == {group["replicas"], group["minReplicas"], group["maxReplicas"]}
    for pod in (group["template"]["spec"], spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]):
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (int(options["--gpus"]), int(options["--cpus"])) == (limits["nvidia.com/gpu"], limits["cpu"])


def test_a_submitted_ray_job_is_valid():
    script = RAY / "submit.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111
    text = re.sub(r"\\\n", " ", script.read_text())
    (line,) = (line for line in text.splitlines() if line.startswith("ray job submit"))
    check_ray_command(line.partition(" -- ")[2])


def test_the_page_names_every_file():
    page = (LAUNCH / "README.md").read_text()
    for file in (*SHELL, *MANIFESTS, *sorted(path for path in RAY.iterdir() if path.is_file())):
        name = file.relative_to(LAUNCH)
        assert f"[{name}]({name})" in page
