"""The engines of examples/engines give the bytes of the local engine, where what they need is installed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_stores import files_of, small_parts, small_preparation, write_corpus

from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.manifest import begin_store
from bert_jax.data.preparation.program import prepare

ENGINES = Path(__file__).parents[1] / "examples" / "engines"
PACKAGES = {"on_beam": "apache_beam", "on_dask": "distributed", "on_datatrove": "datatrove", "on_spark": "pyspark"}
PROGRAM = """
import sys
from {name} import {name} as engine
from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.settings import Preparation
if __name__ == "__main__":
    prepare(Preparation(sys.argv[1]), engine(2) if "{name}" == "on_datatrove" else engine)
"""


def test_every_engine_is_tested_and_named():
    assert sorted(PACKAGES) == sorted(path.stem for path in ENGINES.glob("*.py"))
    page = (ENGINES / "README.md").read_text()
    for name in PACKAGES:
        compile((ENGINES / f"{name}.py").read_text(), name, "exec")
        assert f"[{name}.py]({name}.py)" in page


@pytest.mark.parametrize("name", PACKAGES)
def test_an_engine_gives_the_bytes_of_the_local_one(tmp_path, monkeypatch, name):
    if find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    small_parts(monkeypatch)
    corpus = write_corpus(tmp_path / "corpus")[:2]
    prepare(small_preparation(tmp_path, corpus, "local", drop_duplicates=True), local(1), say=lambda _: None)
    begin_store(small_preparation(tmp_path, corpus, "other", drop_duplicates=True))
    (tmp_path / "program.py").write_text(PROGRAM.format(name=name))
    paths = os.pathsep.join([str(ENGINES), str(ENGINES.parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    command = [sys.executable, tmp_path / "program.py", tmp_path / "other"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files_of(tmp_path / "local") == files_of(tmp_path / "other")
