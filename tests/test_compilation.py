"""Compiled programs are kept on disk, where the same program finds them again."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import jax
import jax.numpy as jnp
from bert_jax.tools import compilation

compilation.WORTH_KEEPING = 0.0
folder = compilation.keep_compiled(sys.argv[1])
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((37, 37)))
print(folder, sum("cache_hits" in name for name in hits), sum("cache_misses" in name for name in hits))
"""


def run(cache):
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-c", SCRIPT, str(cache)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=own).stdout.split()


def test_a_program_is_compiled_once_and_found_by_the_next_process(tmp_path):
    folder, hits, misses = run(tmp_path)
    assert Path(folder).is_relative_to(tmp_path / "compiled")
    assert any(Path(folder).iterdir())
    assert int(hits) == 0
    assert int(misses) > 0
    _, hits, misses = run(tmp_path)
    assert int(hits) > 0
    assert int(misses) == 0


def test_a_folder_that_cannot_be_written_to_does_no_harm(tmp_path):
    (tmp_path / "compiled").write_text("a file is in the way")
    assert len(run(tmp_path)) == 3
