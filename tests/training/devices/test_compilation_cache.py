"""Compiled programs are kept on disk, where the same program finds them again and nobody else can put one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os
import jax
import jax.numpy as jnp
from bert_jax.training.devices import compilation_cache as compilation

compilation.MIN_SECONDS = 0.0
folder = compilation.keep_compiled(os.path.join(os.environ["XDG_CACHE_HOME"], "bert_jax", "compiled"))
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((37, 37)))
print(folder, sum("cache_hits" in name for name in hits), sum("cache_misses" in name for name in hits))
"""


def run(cache, **environment):
    """Returns the lines that a process prints whose user's caches are in `cache`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    own |= {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=own)
    return done.stdout.splitlines()


def test_a_program_is_compiled_once_and_found_by_the_next_process(tmp_path):
    (line,) = run(tmp_path)
    folder, hits, misses = line.split()
    home = tmp_path / "bert_jax" / "compiled"
    assert Path(folder).parent == home
    assert home.stat().st_mode & 0o777 == 0o700
    assert any(Path(folder).iterdir())
    assert int(hits) == 0
    assert int(misses) > 0
    (line,) = run(tmp_path)
    _, hits, misses = line.split()
    assert int(hits) > 0
    assert int(misses) == 0


def file_in_the_way(home):
    home.write_text("x")


def others_may_write(home):
    home.mkdir()
    home.chmod(0o777)


def group_may_write(home):
    home.mkdir()
    home.chmod(0o770)


def somebody_elses(home):
    home.mkdir()
    if os.getuid():
        pytest.skip("only root can give a folder away")
    os.chown(home, 12345, -1)


def link(home):
    (home.parent / "elsewhere").mkdir(mode=0o700)
    home.symlink_to(home.parent / "elsewhere")


@pytest.mark.parametrize("prepare", [file_in_the_way, others_may_write, group_may_write, somebody_elses, link])
def test_no_folder_is_used_that_others_can_write_to(tmp_path, prepare):
    home = tmp_path / "bert_jax" / "compiled"
    home.parent.mkdir()
    prepare(home)
    output, line = run(tmp_path)
    assert output.startswith("compiled programs are not kept: ")
    assert str(home) in output
    assert line == "None 0 0"
    assert not home.is_dir() or not any(home.iterdir())


def test_a_folder_in_the_settings_of_jax_has_priority(tmp_path):
    (line,) = run(tmp_path / "home", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "other"))
    assert line.startswith("None ")
    assert not (tmp_path / "home").exists()
