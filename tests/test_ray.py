"""Training and preparation on a Ray cluster with two CPUs on this machine."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import resumable
from compiling import xla_flags
from resumable import free_address, start
from small_runs import SMALL, write_corpus
from small_stores import files_of, small_parts, small_preparation
from small_stores import write_corpus as write_parts

from bert_jax.data.preparation import parts as parts_module
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.engines.ray_cluster import on_ray
from bert_jax.data.preparation.manifest import begin_store
from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.survey import survey_part
from bert_jax.training.runs.lock import holder
from bert_jax.training.runs.saved_steps import newest_step

# Ray reads these when it is imported: the cluster is nobody else's.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'bert_jax[ray]'")
pytestmark = pytest.mark.slow

LAUNCHER = Path(__file__).parents[1] / "examples" / "launch" / "ray" / "train_on_ray.py"
STEPS = 100


@pytest.fixture(scope="module")
def environment():
    """The environment of a driver: a cluster with two CPUs is its address."""
    address = free_address()
    flags = ["--head", f"--port={address.rpartition(':')[2]}", "--num-cpus=2"]
    flags += ["--include-dashboard=false", "--disable-usage-stats", "--block"]
    environment = os.environ | {"XLA_FLAGS": xla_flags(1), "RAY_ADDRESS": address, "RAY_DEDUP_LOGS": "0"}
    # How often Ray Train looks at its workers, and waits for the ones that are left of a group.
    environment |= {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "JAX_DISTRIBUTED_SHUTDOWN_TIMEOUT_S": "2"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    environment["PYTHONWARNINGS"] = "ignore"
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # the paths of sockets must be short
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags, "--temp-dir", folder]
        with Path(folder, "log").open("w") as log:
            pipes = {"stdout": log, "stderr": subprocess.STDOUT}
            cluster = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        try:
            yield environment
        finally:
            os.killpg(cluster.pid, signal.SIGKILL)
            cluster.wait()


def launch(environment, *arguments):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, LAUNCHER, *map(str, arguments)], env=environment, **pipes)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_a_run_survives_the_death_of_a_worker(environment, tmp_path):
    """It ends with the parameters, to the bit, of two processes that were started by hand and not killed."""
    corpus = write_corpus(tmp_path / "films.txt")
    flags = [
        *SMALL,
        "--steps",
        STEPS,
        "--decay-steps",
        STEPS,
        "--checkpoint-every",
        "20",
        "--eval-every",
        "0",
        "--corpus",
        corpus,
    ]
    flags += ["--cache-dir", tmp_path / "cache", "--output"]
    driver = launch(environment, "--workers", 2, "pretrain", *flags, tmp_path / "ray")
    wait_for(lambda: newest_step(tmp_path / "ray" / "checkpoints"), driver)
    os.kill(holder(tmp_path / "ray").process, signal.SIGKILL)  # the first worker, which the others connect to
    printed = driver.communicate(timeout=240)[0]
    assert driver.returncode == 0, printed
    assert "resuming from step" in printed
    assert newest_step(tmp_path / "ray" / "checkpoints") == STEPS

    join = ["--distributed", "--coordinator", free_address(), "--num-processes", 2, "--process-id"]
    command = [*flags, tmp_path / "hand", *join]
    processes = [
        start(resumable.pretrain, tmp_path / "compiled", *map(str, [*command, index]), log=tmp_path / f"log{index}")
        for index in range(2)
    ]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, (tmp_path / "log0").read_text()
    got, wanted = parameters(tmp_path / "ray"), parameters(tmp_path / "hand")
    assert got.keys() == wanted.keys()
    for name, array in got.items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def parameters(run):
    import bert_jax
    from bert_jax.interop.names import flatten

    return {path: np.asarray(leaf) for path, leaf in flatten(bert_jax.load(run).params, "")}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["pretrain", "--output", "runs/x", "--corpus"], "--output must be the absolute path"),
        (["--max-failures=-1", "pretrain", "--held-out", "2", "--output"], "--held-out must be between 0 and 1"),
    ],
)
def test_a_mistake_is_one_line_and_not_tried_again(environment, tmp_path, flags, message):
    driver = launch(environment, "--workers", 1, *flags, tmp_path / "run")
    printed = driver.communicate(timeout=120)[0]
    assert driver.returncode == 1
    assert any(line.startswith(message) for line in printed.splitlines()), printed


def killed_in_a_part(store, number, once):
    """`prepare_part` in a process that is killed in the middle of part 3, the first time or every time."""
    marker = store.with_name("killed")
    if number == 3 and not (once and marker.exists()):
        marker.touch()
        parts_module.TokenStoreWriter.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    return parts_module.prepare_part(store, number)


@pytest.fixture(scope="module")
def address(environment):
    """The address of the cluster; the first engine connects this process to it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield environment["RAY_ADDRESS"]
    ray.shutdown()


def say(_line):
    pass


@pytest.mark.filterwarnings("ignore")  # of Ray
def test_ray_prepares_the_bytes_of_the_local_engine(address, tmp_path, monkeypatch):
    """Also if a worker is killed; relative paths are those of the driver."""
    small_parts(monkeypatch)
    monkeypatch.chdir(tmp_path)
    corpus = tuple(os.path.relpath(path, tmp_path) for path in write_parts(tmp_path / "corpus")[:2])
    prepare(small_preparation(tmp_path, corpus, "local", drop_duplicates=True), local(1), say=say)
    settings = small_preparation(Path("."), corpus, "ray", drop_duplicates=True)

    def engine(work, store, numbers):
        killed = partial(killed_in_a_part, once=True)
        return on_ray(address)(work if work is survey_part else killed, store, numbers)

    prepare(settings, engine, say=say)
    assert (tmp_path / "killed").exists()
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")


@pytest.mark.filterwarnings("ignore")
def test_the_first_error_names_the_part_and_the_file(address, tmp_path, monkeypatch):
    small_parts(monkeypatch)
    corpus = write_parts(tmp_path / "corpus")[:1]
    settings = small_preparation(tmp_path, corpus)
    last = len(begin_store(settings).parts) - 1
    path = tmp_path / "corpus" / "b.txt"
    path.write_text("another text")
    with pytest.raises(ValueError, match=rf"^part \d+: {path} has changed since the manifest was written") as caught:
        list(on_ray(address)(parts_module.prepare_part, tmp_path / "store", range(last + 1)))
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path / "store" / "part-00003", ignore_errors=True)
    with pytest.raises(ChildProcessError, match=r"^part 3: its Ray workers have died 4 times: "):
        list(on_ray(address)(partial(killed_in_a_part, once=False), tmp_path / "store", [3]))
