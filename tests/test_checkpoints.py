"""What is saved comes back to the bit, on whatever devices, and only what is whole is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretraining_batches import CONFIG

from bert_jax.models import Bert
from bert_jax.training import parallel
from bert_jax.training.checkpoints import Checkpoints, as_arrays
from bert_jax.training.optimizers import make_optimizer
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
    return TrainState(jnp.int32(step), state.params, state.optimizer_state, state.key)


def test_a_state_comes_back_to_the_bit_on_other_devices(tmp_path, split, whole):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(at(split, 5), {"row": 160})
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        restored, data = checkpoints.restore(whole)
    assert data == {"row": 160}
    assert int(restored.step) == 5
    jax.tree.map(np.testing.assert_array_equal, as_arrays(restored), as_arrays(at(split, 5)))
    kernel = restored.params["encoder"]["feed_forward"]["up"]["kernel"]
    assert kernel.sharding == whole.params["encoder"]["feed_forward"]["up"]["kernel"].sharding


def test_mesh_and_pmap_read_one_another(tmp_path, split):
    pmap = parallel.make_layout("pmap").create(create, jax.random.key(2))
    for saved, like in ((split, pmap), (pmap, split)):
        folder = tmp_path / ("mesh" if saved is split else "pmap")
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(at(saved, 3), {"row": 96})
            restored, _ = checkpoints.restore(like)
        jax.tree.map(np.testing.assert_array_equal, as_arrays(restored), as_arrays(at(saved, 3)))
        for got, wanted in zip(jax.tree.leaves(restored.params), jax.tree.leaves(like.params), strict=True):
            assert got.sharding == wanted.sharding


def test_saving_is_not_disturbed_by_the_next_step(tmp_path, whole):
    """The next step takes over the state's memory while it is being saved."""
    scramble = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    fresh = jax.tree.map(lambda x: x + 1, whole.params)
    wanted = jax.tree.map(np.array, fresh)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(TrainState(jnp.int32(1), fresh, whole.optimizer_state, whole.key), {"row": 0})
        jax.block_until_ready(scramble(fresh))
        restored, _ = checkpoints.restore(whole)
    jax.tree.map(np.testing.assert_array_equal, restored.params, wanted)


def test_the_newest_are_kept(tmp_path, whole):
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        for step in (1, 2, 2, 3):
            checkpoints.save(at(whole, step), {"row": step})
        checkpoints.manager.wait_until_finished()
        assert checkpoints.latest == 3
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_a_new_folder_has_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None
