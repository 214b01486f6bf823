"""The jobs of a Slurm cluster, with an `sbatch` that runs them at once, and records their commands."""

import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_stores import files_of, small_parts, small_preparation, write_corpus

from bert_jax.cli.main import main
from bert_jax.data.preparation.engines import slurm
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.manifest import Manifest, begin_store
from bert_jax.data.preparation.program import prepare

# Options precede the command; tasks of an array run in reverse order.
SBATCH = """#!/bin/bash
echo "$@" >> {log}.jobs
while [ "$1" != --wrap ]; do
    case "$1" in --array=*) range=${{1#--array=}} ;; esac
    shift
done
if [ -n "$range" ]; then
    for task in $(seq ${{range#*-}} -1 ${{range%-*}}); do SLURM_ARRAY_TASK_ID=$task bash -c "$2"; done
else
    bash -c "$2"
fi
wc -l < {log}.jobs
"""
PYTHON = '#!/bin/bash\necho "$@" >> {log}\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Puts `sbatch` on the path, and in place of Python a program that records its arguments; returns the record."""
    small_parts(monkeypatch)
    log = tmp_path / "log"
    (tmp_path / "bin").mkdir()
    for name, script in (("sbatch", SBATCH), ("python", PYTHON)):
        (tmp_path / "bin" / name).write_text(script.format(log=log))
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "sys", SimpleNamespace(executable=str(tmp_path / "bin" / "python")))
    return log


@pytest.mark.parametrize(("drop_duplicates", "most_tasks"), [(False, 3), (True, 1000)])
def test_jobs_make_the_store_of_the_local_engine(tmp_path, monkeypatch, capsys, cluster, drop_duplicates, most_tasks):
    """Also if the parts are more than the tasks that an array may have: a task then does several."""
    corpus = write_corpus(tmp_path / "corpus")[:1]
    monkeypatch.setattr(slurm, "MOST_TASKS", most_tasks)
    options = {"drop_duplicates": drop_duplicates}
    prepare(small_preparation(tmp_path, corpus, "local", **options), local(1), say=lambda _: None)
    begin_store(small_preparation(tmp_path, corpus, "slurm", **options))
    store = str(tmp_path / "slurm")
    assert main(["prepare", "--output", store, "--engine", "slurm", "--submit"]) == 0
    commands = [shlex.split(line)[2:] for line in cluster.read_text().splitlines()]
    count = len(Manifest.load(Path(store)).parts)
    parts = [int(command[-1]) for command in commands if "--part" in command]
    assert sorted(parts) == sorted([*range(count)] * (1 + drop_duplicates))
    assert commands[-1] == ["prepare", "--output", store]
    assert ["prepare", "--output", store, "--combine"] in commands or not drop_duplicates
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err
    assert files_of(tmp_path / "local") == files_of(tmp_path / "slurm")


def test_jobs_wait_for_one_another(tmp_path, cluster):
    corpus = write_corpus(tmp_path / "corpus")[:1]
    manifest = begin_store(small_preparation(tmp_path, corpus, drop_duplicates=True))
    slurm.submit(slurm.make_script(manifest))
    jobs = Path(f"{cluster}.jobs").read_text().splitlines()
    waits = [[word for word in job.split() if word.startswith("--dependency")] for job in jobs]
    assert waits == [[], ["--dependency=afterok:1"], ["--dependency=afterok:2"], ["--dependency=afterok:3"]]


def test_the_script_is_printed_and_an_error_of_slurm_is_one_line(tmp_path, monkeypatch, capsys, cluster):
    corpus = write_corpus(tmp_path / "corpus")[:1]
    begin_store(small_preparation(tmp_path, corpus))
    store = str(tmp_path / "store")
    assert main(["prepare", "--output", store, "--engine", "slurm"]) == 0
    script = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert not cluster.exists()
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
    assert main(["prepare", "--output", store, "--engine", "slurm", "--submit"]) == 1
    assert "the jobs were not submitted: sbatch: error: invalid partition" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["prepare", "--output", store, "--engine", "slurm", "--submit"]) == 1
    assert "sbatch: command not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--submit"], "--submit is only used with --engine slurm"),
        (["--address", "auto"], "--address is only used with --engine ray"),
        (["--workers", "2", "--engine", "ray"], "--workers is only used with --engine local"),
        (["--part", "0", "--combine"], "--combine cannot be combined with --part"),
    ],
)
def test_options_of_another_engine_are_an_error(capsys, flags, message):
    assert main(["prepare", "--output", "x", *flags]) == 1
    assert message in capsys.readouterr().err
