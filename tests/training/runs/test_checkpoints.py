"""A saved state is restored to the bit, on any devices, and only complete checkpoints are seen."""

import errno
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretraining_batches import CONFIG

from bert_jax.models import Bert
from bert_jax.training.devices import parallel
from bert_jax.training.optimizers import make_optimizer
from bert_jax.training.runs.checkpoints import SAVED, Checkpoints, NotSaved, as_arrays
from bert_jax.training.runs.lock import LOCK, RunInUse, RunLock
from bert_jax.training.runs.saved_steps import newest_whole_step
from bert_jax.training.state import TrainState

OPTIMIZER = make_optimizer("bert_adamw", lambda step: 0.1)


def create(key):
    params = Bert(CONFIG).init(key, jnp.zeros((1, 2), jnp.int32))["params"]
    return TrainState.create(params, OPTIMIZER, key=key)


@pytest.fixture(scope="module")
def split():
    return parallel.make_layout(fsdp=4).create(create, jax.random.key(0))


@pytest.fixture(scope="module")
def whole():
    return parallel.make_layout().create(create, jax.random.key(1))


def at(state, step):
    return replace(state, step=jnp.int32(step))


def test_a_state_is_restored_to_the_bit_on_other_devices(tmp_path, split, whole):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(at(split, 5), {"row": 160})
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        restored, data = checkpoints.restore(whole)
    assert data == {"row": 160}
    assert int(restored.step) == 5
    jax.tree.map(np.testing.assert_array_equal, as_arrays(restored), as_arrays(at(split, 5)))
    kernel = restored.params["encoder"]["feed_forward"]["up"]["kernel"]
    assert kernel.sharding == whole.params["encoder"]["feed_forward"]["up"]["kernel"].sharding


def test_mesh_and_pmap_restore_each_others_checkpoints(tmp_path, split):
    pmap = parallel.make_layout("pmap").create(create, jax.random.key(2))
    for saved, like in ((split, pmap), (pmap, split)):
        folder = tmp_path / ("mesh" if saved is split else "pmap")
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(at(saved, 3), {"row": 96})
            restored, _ = checkpoints.restore(like)
        jax.tree.map(np.testing.assert_array_equal, as_arrays(restored), as_arrays(at(saved, 3)))
        for got, wanted in zip(jax.tree.leaves(restored.params), jax.tree.leaves(like.params), strict=True):
            assert got.sharding == wanted.sharding


def test_a_save_in_the_background_is_not_affected_by_the_next_step(tmp_path, whole):
    """The next step reuses the donated memory of the state while it is saved."""
    scramble = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    fresh = jax.tree.map(lambda x: x + 1, whole.params)
    wanted = jax.tree.map(np.array, fresh)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(replace(at(whole, 1), params=fresh), {"row": 0})
        jax.block_until_ready(scramble(fresh))
        restored, _ = checkpoints.restore(whole)
    jax.tree.map(np.testing.assert_array_equal, restored.params, wanted)


def test_the_newest_checkpoints_are_kept(tmp_path, whole):
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        for step in (1, 2, 2, 3):
            checkpoints.save(at(whole, step), {"row": step})
        checkpoints.manager.wait_until_finished()
        assert checkpoints.latest == 3
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_a_new_folder_has_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None


@pytest.fixture(scope="module")
def three(tmp_path_factory, whole):
    """Checkpoints of the steps 1, 2, 3."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(at(whole, step), {"row": step})
    return folder


def largest_file(checkpoint):
    """The file that holds the arrays."""
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip, lambda path: path.unlink()], ids=["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_moved_away_and_the_one_before_it_used(tmp_path, three, whole, harm):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    harm(largest_file(folder / "3" / "state"))
    harm(folder / "2" / "data" / "metadata")
    lines = []
    assert newest_whole_step(folder, lines.append) == 1
    assert [
        line.startswith(f"{folder}/{step}: the checkpoint is damaged: ") for line, step in zip(lines, "32", strict=True)
    ]
    assert lines[0].endswith(f"; moved to {tmp_path}/damaged/3")
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["2", "3"]
    with Checkpoints(folder) as checkpoints:
        state, data = checkpoints.restore(whole)
    assert (int(state.step), data) == (1, {"row": 1})


def rename_within(disk):
    """Returns an `os.rename` that fails, as between two disks, if only one of the names is on `disk`."""
    rename = os.rename

    def rename_on_a_disk(one, two):
        inside = [Path(name).parent.resolve().is_relative_to(disk.resolve()) for name in (one, two)]
        if inside[0] != inside[1]:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(one, two)

    return rename_on_a_disk


@pytest.mark.parametrize("linked", [True, False], ids=["link", "mount point"])
def test_damaged_checkpoints_on_another_disk_stay_on_it(tmp_path, three, whole, monkeypatch, linked):
    run = tmp_path / "run"
    disk = tmp_path / "disk" / "checkpoints" if linked else run / "checkpoints"
    run.mkdir()
    shutil.copytree(three, disk)
    if linked:
        (run / "checkpoints").symlink_to(disk)
    for step in (2, 3):
        truncate(largest_file(disk / str(step) / "state"))
    monkeypatch.setattr(os, "rename", rename_within(disk))
    lines = []
    assert newest_whole_step(run / "checkpoints", lines.append) == 1
    assert [line.rpartition("; ")[2] for line in lines] == [
        f"moved to {run}/checkpoints/damaged/{step}" for step in (3, 2)
    ]
    assert not (run / "damaged").exists()
    with Checkpoints(run / "checkpoints", keep=1) as checkpoints:
        state, _ = checkpoints.restore(whole)
        assert int(state.step) == 1
        checkpoints.save(at(whole, 4), {"row": 4})
    assert sorted(path.name for path in disk.iterdir()) == ["4", "damaged"]


def test_a_complete_checkpoint_is_noted_beside_its_folder(tmp_path, whole):
    """Of a folder that is a link, on this side of it: if the disk is missing, the note is not."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")
    note = tmp_path / "run" / SAVED
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.check()
        assert not note.exists()
        checkpoints.save(at(whole, 1), {"row": 1})
        checkpoints.wait()
        checkpoints.check()
        assert note.exists()
    note.unlink()  # as a version that did not write it
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert note.exists()
        checkpoints.discard(1)  # there is none any more
        assert not note.exists()
        checkpoints.save(at(whole, 2), {"row": 2})
        checkpoints.__exit__(KeyError, KeyError(), None)
        assert note.exists()


def test_nothing_is_saved_without_the_lock(tmp_path, whole):
    lock = RunLock(tmp_path)
    (tmp_path / LOCK).write_text("of another process")
    with Checkpoints(tmp_path / "checkpoints", lock=lock) as checkpoints:
        with pytest.raises(RunInUse, match="did not touch its lock in time"):
            checkpoints.save(at(whole, 1), {"row": 1})
        assert checkpoints.latest is None
    lock.release()


def test_a_checkpoint_moved_away_before_is_not_overwritten(tmp_path, three):
    (tmp_path / "damaged" / "3").mkdir(parents=True)
    shutil.copytree(three, tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "3" / "manifest.json").unlink()
    assert newest_whole_step(tmp_path / "checkpoints", lambda line: None) == 2
    assert (tmp_path / "damaged" / "3-2" / "state").is_dir()


def test_an_older_damaged_checkpoint_does_not_stop_a_run(tmp_path, three, whole):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    truncate(folder / "1" / "data" / "metadata")
    assert newest_whole_step(folder) == 3
    with Checkpoints(folder, keep_best=1) as checkpoints:
        assert int(checkpoints.restore(whole)[0].step) == 3


def test_the_best_checkpoints_are_kept_besides_the_newest_also_after_a_resume(tmp_path, whole):
    folder = tmp_path / "checkpoints"
    for scores in ({1: 3.0, 2: 1.0, 3: 2.0}, {4: 5.0, 5: None}):
        with Checkpoints(folder, keep=1, keep_best=1) as checkpoints:
            for step, score in scores.items():
                checkpoints.save(at(whole, step), {"row": step}, score)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "5"]
    with Checkpoints(folder, keep=1, keep_best=1) as checkpoints:
        assert checkpoints.best == 2
        assert checkpoints.is_best(0.5)
        assert not checkpoints.is_best(1.0)
    with Checkpoints(folder) as checkpoints:
        assert not checkpoints.is_best(0.5)


def test_scores_are_not_compared_with_those_of_other_evaluation_data(tmp_path, whole):
    """Such as the losses of two phases, whose held-out rows have other lengths."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=1, keep_best=1) as checkpoints:
        checkpoints.save(at(whole, 1), {"row": 1}, 1.0)
        checkpoints.save(at(whole, 2), {"row": 2}, 2.0)
        checkpoints.comparable_after = 2
        assert checkpoints.is_best(3.0)
        checkpoints.save(at(whole, 3), {"row": 3}, 3.0)
        assert not checkpoints.is_best(3.5)
        checkpoints.save(at(whole, 4), {"row": 4}, 4.0)
        assert checkpoints.ranked() == [3, 4, 1, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["3", "4"]


def test_a_score_that_is_known_after_its_checkpoint_is_saved_by_the_next_one(tmp_path, whole):
    """Such as the score of a pending evaluation, which the resumed run does."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=1, keep_best=1) as checkpoints:
        checkpoints.save(at(whole, 1), {"row": 1}, None)
        checkpoints.scores[1] = 2.0
        checkpoints.save(at(whole, 2), {"row": 2}, 3.0)
    with Checkpoints(folder, keep=1, keep_best=1) as checkpoints:
        assert checkpoints.scores == {1: 2.0, 2: 3.0}
        checkpoints.save(at(whole, 3), {"row": 3}, 4.0)
        checkpoints.wait()
        checkpoints.save(at(whole, 4), {"row": 4}, 5.0)
        checkpoints.wait()
        assert checkpoints.read_data(4)["scores"].keys() == {"1", "3", "4"}  # not those of deleted checkpoints
    assert sorted(path.name for path in folder.iterdir()) == ["1", "4"]


@pytest.mark.parametrize(("keep_best", "kept"), [(0, ["2"]), (1, ["1", "2"])])
def test_the_checkpoint_before_is_kept_until_the_newest_one_is_evaluated(tmp_path, whole, keep_best, kept):
    folder = tmp_path / "checkpoints"

    def on_disk():
        checkpoints.wait()
        return sorted(path.name for path in folder.iterdir())

    with Checkpoints(folder, keep=1, keep_best=keep_best) as checkpoints:
        checkpoints.save(at(whole, 1), {"row": 1}, 2.0)
        checkpoints.save(at(whole, 2), {"row": 2}, pending=True)
        assert on_disk() == ["1", "2"]
        checkpoints.confirm(2, 3.0)
        assert on_disk() == kept
        assert checkpoints.scores[2] == 3.0
        checkpoints.save(at(whole, 3), {"row": 3}, pending=True)
        checkpoints.discard(3)
        assert on_disk() == kept
        assert checkpoints.latest == 2


def test_a_resumed_run_deletes_the_checkpoint_before_once_the_newest_one_is_evaluated(tmp_path, whole):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(at(whole, 1), {"row": 1})
        checkpoints.save(at(whole, 2), {"row": 2}, pending=True)
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.latest == 2
        checkpoints.confirm(2, None)
    assert [path.name for path in folder.iterdir()] == ["2"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits are set by setrlimit")
@pytest.mark.parametrize("meanwhile", [None, OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")])
def test_a_failed_save_is_an_error_of_one_line_and_leaves_the_one_before_complete(tmp_path, whole, caplog, meanwhile):
    """Also if another file of the run meets the full disk first."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = {"noise": jax.random.normal(jax.random.key(0), (1 << 16,))}

    def save_too_much():
        try:
            with Checkpoints(tmp_path / "checkpoints") as checkpoints:
                checkpoints.save(at(whole, 1), {"row": 1})
                checkpoints.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, limits[1]))
                checkpoints.save(replace(at(whole, 2), params=noise), {"row": 2})
                if meanwhile is not None:
                    raise meanwhile
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.raises(NotSaved, match="File too large; complete checkpoints: step 1") as caught:
        save_too_much()
    assert "\n" not in str(caught.value)
    assert not caplog.records
    assert newest_whole_step(tmp_path / "checkpoints") == 1
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(at(whole, 3), {"row": 3})
    with Checkpoints(tmp_path / "checkpoints"):  # removes what threads of the failed save wrote after it had failed
        pass
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "1",
        "3",
    ]  # without the unfinished ones
