"""The attention kernel computes what plain matrix products compute: outputs, gradients and dropout masks."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import assert_leaves_agree

from bert_jax.config import BertConfig
from bert_jax.functional import attention_blocks, attention_gpu, attention_tpu, fused_attention
from bert_jax.functional.attention import attention, make_attention_mask, plain_attention
from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.functional.encoder import encoder
from bert_jax.models import Bert
from bert_jax.training.devices.parallel import make_mesh
from bert_jax.training.state import run_key

SAME_IN_FLOAT32 = 2e-6
# Relative to the largest element of a leaf, and which leaves are zero but for rounding: the gradient of a key's bias.
TOLERANCES = {"float32": (SAME_IN_FLOAT32, 1e-6), "bfloat16": (2e-2, 1e-4)}
N, H, T = 4, 8, 45
D = N * H
RATE = 0.1
KEY = run_key(jax.random.key(3))
MASK = np.array([[1] * 11 + [2] * 19 + [3] * 8 + [0] * 7, [7] * 2 + [5] * 43, [0] * T])  # numbers in no order
DRIVERS = {"blocks": attention_gpu, "rows": attention_tpu}
CONFIG = BertConfig(
    vocab_size=31, hidden_size=D, num_hidden_layers=2, num_attention_heads=N, intermediate_size=20,
    max_position_embeddings=T, hidden_dropout_prob=0.0, attention_probs_dropout_prob=RATE,
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of queries and of keys in a row, and several heads in a group of the kernel of TPUs."""
    for name in ("FORWARD", "BACKWARD_QUERIES", "BACKWARD_KEYS"):
        monkeypatch.setattr(attention_gpu, name, attention_gpu.Tuning(queries=16, keys=8, warps=4, stages=2))
    monkeypatch.setattr(attention_gpu, "UNIT", 16)
    for name in ("UNIT", "BLOCK"):
        monkeypatch.setattr(attention_tpu, name, 16)
    monkeypatch.setattr(attention_tpu, "LANES", 2 * H)


@pytest.fixture(params=DRIVERS)
def driver(request, monkeypatch):
    """The driver that is interpreted, also by a model."""
    interpreted = DRIVERS[request.param]
    monkeypatch.setitem(KERNELS, "pallas", partial(fused_attention.fused_attention, interpreted=interpreted))
    return interpreted


@pytest.fixture(scope="module")
def params():
    tree = Bert(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    return jax.tree.map(lambda x: x[0], tree["encoder"]["attention"])


def arrays(count: int, *shape: int, dtype=jnp.float32):
    return [jax.random.normal(key, shape, dtype) for key in jax.random.split(jax.random.key(1), count)]


def fused(q, k, v, mask=MASK, *, rate=0.0, key=None):
    return KERNELS["pallas"](q, k, v, jnp.asarray(mask), num_heads=q.shape[-1] // H, dropout_rate=rate, key=key)


@pytest.mark.parametrize(("dtype", "rate"), [("float32", 0.0), ("float32", RATE), ("bfloat16", RATE)])
def test_outputs_and_gradients_are_those_of_matrix_products(params, dtype, rate, driver):
    x, weights = arrays(2, *MASK.shape, D, dtype=dtype)
    is_token = (MASK != 0)[..., None]

    def gradients(kernel):
        mask = jnp.asarray(MASK) if kernel else make_attention_mask(jnp.asarray(MASK))
        attend = partial(attention, mask=mask, num_heads=N, dropout_rate=rate, kernel=kernel, key=KEY)

        def loss(params, x):
            out = jnp.where(is_token, attend(params, x)[0], 0)
            return (out * weights).astype(jnp.float32).sum(), out

        gradients, out = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)
        return {"params": gradients[0], "x": gradients[1], "output": out}

    tolerance, negligible = TOLERANCES[dtype]
    assert_leaves_agree(gradients("pallas"), gradients(None), tolerance, negligible=negligible)


@pytest.mark.parametrize("kernel", [True, False])
def test_the_softmax_of_a_bfloat16_model_is_float32(kernel, driver):
    """Scores up to 20, whose rounding to bfloat16 would change weights by several per cent."""
    q, k, v = arrays(3, *MASK.shape, D, dtype=jnp.bfloat16)

    def attend(*given):
        if kernel:
            return fused(*given)
        out, _ = plain_attention(*given, make_attention_mask(MASK), num_heads=N, dropout_rate=0.0, key=None)
        return jnp.where((MASK != 0)[..., None], out, 0)

    got, exact = (attend(*(x.astype(dtype) for x in (6 * q, k, v))) for dtype in ("bfloat16", "float32"))
    assert np.abs(got.astype(jnp.float32) - exact).max() < 1e-2 * np.abs(exact).max()


def test_the_dropout_mask_is_that_of_the_plain_path(driver):
    """With q = k = 0 all weights are equal, and v = one-hot vectors show which of them were kept."""
    zeros = jnp.zeros((2, T, D))
    attend = jax.jit(partial(fused, zeros, zeros, mask=np.ones((2, T), int), rate=RATE, key=KEY))
    kept = []
    for start in range(0, T, H):
        one_hot = jnp.tile(jnp.eye(T, H, k=-start), (2, 1, N))
        kept.append(attend(one_hot).reshape(2, T, N, H) != 0)
    drawn = jax.random.bits(KEY, (2, N, T, T), jnp.uint16) >= round(RATE * 2**16)
    np.testing.assert_array_equal(jnp.concatenate(kept, axis=-1).swapaxes(1, 2)[..., :T], drawn)


def test_packed_sequences_give_what_they_give_in_rows_of_their_own(driver):
    q, k, v = arrays(3, 1, T, D)
    cut = 19
    packed = fused(q, k, v, np.array([[1] * cut + [2] * (T - cut)]))
    alone = jnp.zeros((2, T, D))
    separate = fused(
        *(alone.at[0, :cut].set(x[0, :cut]).at[1, : T - cut].set(x[0, cut:]) for x in (q, k, v)),
        np.array([[1] * cut + [0] * (T - cut), [1] * (T - cut) + [0] * cut]),
    )
    expected = jnp.concatenate([separate[0, :cut], separate[1, : T - cut]])
    np.testing.assert_allclose(packed[0], expected, atol=SAME_IN_FLOAT32)


def test_packed_sequences_give_the_same_bits_as_alone_at_their_place(driver):
    """Also where other blocks of keys are skipped: a block that adds nothing changes no bit."""
    q, k, v, cotangent = arrays(4, 1, T, D)

    @jax.jit
    def run(mask):
        out, pullback = jax.vjp(lambda *given: fused(*given, mask, rate=RATE, key=KEY), q, k, v)
        return out, *pullback(cotangent)

    packed = run(jnp.asarray(MASK[:1]))
    for number in (1, 2, 3):
        place = MASK[0] == number
        for together, alone in zip(packed, run(jnp.asarray(MASK[:1] * place)), strict=True):
            np.testing.assert_array_equal(together[0, place], alone[0, place])


def test_a_sequence_sees_neither_its_neighbours_nor_padding(driver):
    q, k, v = arrays(3, 1, T, D)
    first = np.array(MASK[:1] == 1)[..., None]
    others = [jnp.where(first, x, 1 - x) for x in (q, k, v)]

    @jax.jit
    def run(q, k, v):
        out, pullback = jax.vjp(partial(fused, mask=MASK[:1], rate=RATE, key=KEY), q, k, v)
        return out, *pullback(jnp.where(first, out, 0))

    for before, after in zip(run(q, k, v), run(*others), strict=True):
        np.testing.assert_array_equal(before[first[..., 0]], after[first[..., 0]])
    assert (run(q, k, v)[0] != run(*others)[0]).any()


def test_blocks_without_a_token_of_the_sequence_are_not_read(driver):
    """Zero times NaN is NaN, so a block that is read and masked would show."""
    first = np.arange(T) < 16
    *qkv, cotangent = (jnp.where(first[None, :, None], x, jnp.nan) for x in arrays(4, 1, T, D))
    out, pullback = jax.vjp(partial(fused, mask=np.where(first, 1, 2)[None], rate=RATE, key=KEY), *qkv)
    for x in (out, *pullback(cotangent)):
        assert np.isfinite(x[0, first]).all()


def test_padding_gives_zeros_and_gets_no_gradient(driver):
    q, k, v = arrays(3, *MASK.shape, D)
    padding = np.asarray(MASK == 0)
    out, pullback = jax.vjp(partial(fused, rate=RATE, key=KEY), q, k, v)
    assert not np.asarray(out)[padding].any()
    for gradient in pullback(jnp.full_like(out, 1e3)):
        assert not np.asarray(gradient)[padding].any()
        assert np.isfinite(gradient).all()


def gradients_and_output(q, k, v, weights):
    mask = np.tile([1] * 9 + [2] * 4 + [0] * 3, (len(q), 1))

    def loss(q, k, v):
        out = fused(q, k, v, mask, rate=RATE, key=KEY)
        return (out * weights).sum(), out

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)


@cache
def on_one_device(driver):
    return jax.jit(gradients_and_output)(*arrays(4, 8, 16, 2 * H))


@pytest.mark.parametrize(("fsdp", "tensor"), [(2, 2), (1, 1), (1, 4)])
def test_every_mesh_computes_what_one_device_computes(fsdp, tensor, driver):
    """Dropout included; if `tensor` does not divide the heads, each of its devices computes all of them.

    To the bit, where a program computes one head. For several, XLA's loops over the interpreted programs of a CPU round
    by their number.
    """
    mesh = make_mesh(fsdp=fsdp, tensor=tensor)

    def on_mesh(*given):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return gradients_and_output(*given)

    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    found = jax.jit(on_mesh, in_shardings=rows)(*arrays(4, 8, 16, 2 * H))
    tolerance = 0.0 if driver is attention_gpu else SAME_IN_FLOAT32
    check = partial(np.testing.assert_allclose, rtol=0.0, atol=tolerance)
    jax.tree.map(check, found, on_one_device(driver))


def test_a_mapped_program_has_the_masks_of_one_device(driver):
    """Each device sees its own row alone, which is row 0 of what it sees."""
    rows = jax.sharding.PartitionSpec(("data", "fsdp"))
    mapped = jax.shard_map(gradients_and_output, mesh=make_mesh(), in_specs=rows, out_specs=rows, check_vma=False)
    check = partial(np.testing.assert_allclose, rtol=0.0, atol=SAME_IN_FLOAT32)
    jax.tree.map(check, jax.jit(mapped)(*arrays(4, 8, 16, 2 * H)), on_one_device(driver))


def test_pmap_computes_what_one_device_computes(driver):
    q, k, v = arrays(3, 2, 1, 16, D)
    alone = partial(fused, mask=np.ones((1, 16), int), rate=RATE, key=KEY)
    together = jax.pmap(alone)(q, k, v)
    for device in range(2):
        np.testing.assert_array_equal(together[device], jax.jit(alone)(q[device], k[device], v[device]))


def test_heads_that_do_not_fill_registers_are_computed_together(monkeypatch):
    q, k, v = arrays(3, *MASK.shape, D)
    options = {"num_heads": N, "dropout_rate": RATE, "key": KEY, "interpreted": attention_tpu}
    in_pairs = fused_attention.fused_attention(q, k, v, jnp.asarray(MASK), **options)
    monkeypatch.setattr(attention_tpu, "LANES", 3 * H)
    together = fused_attention.fused_attention(q, k, v, jnp.asarray(MASK), **options)
    np.testing.assert_allclose(together, in_pairs, atol=SAME_IN_FLOAT32)


def test_seeds_mapped_together_have_the_masks_that_each_has_alone(driver):
    q, k, v = arrays(3, 2, 1, 16, D)
    keys = jax.random.split(KEY)
    alone = jax.jit(partial(fused, mask=np.ones((1, 16), int), rate=RATE))
    together = jax.vmap(lambda q, k, v, key: alone(q, k, v, key=key))(q, k, v, keys)
    for seed in range(2):
        np.testing.assert_array_equal(together[seed], alone(q[seed], k[seed], v[seed], key=keys[seed]))


@pytest.mark.parametrize(("remat", "runs"), [("none", 1), ("dots", 1), ("full", 2)])
def test_rematerialization_of_all_but_products_keeps_the_results_of_the_kernel(remat, runs):
    model = Bert(CONFIG, remat=remat, kernel="pallas")
    tree = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    x = jnp.zeros((1, 16, D))

    def loss(params):
        out, *_ = encoder(params, x, jnp.ones((1, 16), jnp.int32), config=CONFIG, remat=remat, kernel="pallas", key=KEY)
        return out.sum()

    program = str(jax.make_jaxpr(jax.grad(loss))(tree["encoder"]))
    drivers = 3  # of GPUs, of TPUs, and interpreted
    assert program.count("name=forward_kernel") == runs * drivers


def test_blocks_that_share_a_sequence_are_visited_and_blocks_of_padding_are_not():
    example = attention_blocks.shared_blocks(jnp.array([[1, 1, 2, 2, 2, 3, 0, 0]]), 2, 2)
    np.testing.assert_array_equal(example, [[[0, 1], [1, 3], [1, 3], [0, 0]]])
    numbers = np.random.default_rng(0).integers(0, 4, (5, 24))
    ranges = np.asarray(attention_blocks.shared_blocks(jnp.asarray(numbers), 4, 3))
    for row, block, other in np.ndindex(5, 6, 8):
        mine = set(numbers[row, 4 * block : 4 * block + 4]) - {0}
        if mine & set(numbers[row, 3 * other : 3 * other + 3]):
            assert ranges[row, block, 0] <= other < ranges[row, block, 1]


def test_dropout_masks_of_another_generator_are_refused():
    q, k, v = arrays(3, 1, 16, D)
    with pytest.raises(ValueError, match="hashed random bits only, got"):
        fused(q, k, v, np.ones((1, 16), int), rate=RATE, key=jax.random.key(0))
