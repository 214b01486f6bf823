"""Attention kernels agree with plain matrix products, and a kernel that does not is not chosen."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.functional.attention_kernels import cudnn
from bert_jax.functional.fused_attention import fused_attention
from bert_jax.models import Bert
from bert_jax.training.devices import kernel_choice as kernels
from bert_jax.training.devices.kernel_choice import AttentionInputs

CONFIG = BertConfig(
    vocab_size=31,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
MASK = np.array([[1] * 10 + [2] * 15 + [0] * 7, [1] * 32])
ROWS = AttentionInputs(MASK, packed=True)
DROPPING = replace(CONFIG, attention_probs_dropout_prob=0.1)
choose_kernel = partial(kernels.choose_kernel, platform="cpu")


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(0, 31, MASK.shape)


@pytest.fixture(scope="module")
def params(ids):
    return jax.jit(Bert(CONFIG).init)(jax.random.key(0), ids)["params"]


def test_a_kernel_that_agrees_is_used_by_name():
    assert choose_kernel("pallas", CONFIG, ROWS) == ("pallas", "agrees with plain matrix products")
    assert choose_kernel("pallas", DROPPING, replace(ROWS, seeds=3))[0] == "pallas"
    assert choose_kernel("plain", CONFIG, ROWS)[0] is None


def test_a_wrong_kernel_is_refused(monkeypatch):
    def leaking(q, k, v, attention_mask, **options):
        return fused_attention(q, k, v, jnp.ones_like(attention_mask), **options)

    monkeypatch.setitem(kernels.KERNELS, "pallas", leaking)
    with pytest.raises(ValueError, match="`attention=pallas` is wrong on this device: the output differs by"):
        choose_kernel("pallas", CONFIG, ROWS)


def test_a_kernel_with_another_dropout_mask_is_refused(monkeypatch):
    def shifted(q, k, v, attention_mask, *, key, **options):
        return fused_attention(q, k, v, attention_mask, key=jax.random.fold_in(key, 1), **options)

    monkeypatch.setitem(kernels.KERNELS, "pallas", shifted)
    assert choose_kernel("pallas", CONFIG, ROWS)[0] == "pallas"
    with pytest.raises(ValueError, match="the output differs by"):
        choose_kernel("pallas", DROPPING, ROWS)


def test_a_kernel_that_leaves_padding_unwritten_is_refused(monkeypatch):
    """It is right at tokens; the NaN at padding would reach the gradient of the next layer's kernel."""

    def unwritten(q, k, v, attention_mask, **options):
        return jnp.where((attention_mask != 0)[..., None], fused_attention(q, k, v, attention_mask, **options), jnp.nan)

    monkeypatch.setitem(kernels.KERNELS, "pallas", unwritten)
    with pytest.raises(ValueError, match="output is not finite everywhere"):
        choose_kernel("pallas", CONFIG, AttentionInputs(np.ones_like(MASK), packed=False))


def test_a_kernel_is_checked_on_packed_rows_even_if_the_first_rows_hold_one_sequence(monkeypatch):
    def blind(q, k, v, attention_mask, **options):
        return fused_attention(q, k, v, jnp.minimum(attention_mask, 1), **options)

    monkeypatch.setitem(kernels.KERNELS, "pallas", blind)
    single = replace(ROWS, attention_mask=np.minimum(MASK, 1))
    assert choose_kernel("pallas", CONFIG, replace(single, packed=False))[0] == "pallas"
    with pytest.raises(ValueError, match="the output differs by"):
        choose_kernel("pallas", CONFIG, single)


@pytest.mark.parametrize("packed", [True, False])
def test_a_leak_below_the_error_tolerance_is_refused(packed, monkeypatch):
    """A leak from another sequence of a packed row, or from padding."""

    def leaking(q, k, v, attention_mask, **options):
        return fused_attention(q, k, v, attention_mask, **options) + 1e-4 * v[:, -1:]

    monkeypatch.setitem(kernels.KERNELS, "pallas", leaking)
    rows = AttentionInputs(np.ones_like(MASK), packed=packed)
    with pytest.raises(ValueError, match="a sequence sees its neighbours or padding"):
        choose_kernel("pallas", CONFIG, rows)


def test_cudnn_gets_length_1_for_an_empty_row_and_gives_zeros_at_padding(monkeypatch):
    given = []

    def unwritten(q, k, v, *, query_seq_lengths, key_value_seq_lengths, implementation):
        given.extend((query_seq_lengths, key_value_seq_lengths))
        return jnp.where(np.arange(7)[None, :, None, None] < query_seq_lengths[:, None, None, None], q, jnp.nan)

    monkeypatch.setattr(jax.nn, "dot_product_attention", unwritten)
    q = jnp.ones((3, 7, 8))
    mask = jnp.array([[1] * 7, [1] * 5 + [0] * 2, [0] * 7])
    out = cudnn(q, q, q, mask, num_heads=2, dropout_rate=0.1, key=None)
    for lengths in given:
        np.testing.assert_array_equal(lengths, [7, 5, 1])
    np.testing.assert_array_equal(out.sum(axis=(1, 2)), [56, 40, 0])


def test_a_kernel_that_is_wrong_at_another_length_only_is_refused(monkeypatch):
    def short_sighted(q, k, v, attention_mask, **options):
        return fused_attention(q, k, v, attention_mask, **options) * (1.0 if q.shape[1] == MASK.shape[1] else 2.0)

    monkeypatch.setitem(kernels.KERNELS, "pallas", short_sighted)
    assert choose_kernel("pallas", CONFIG, ROWS)[0] == "pallas"
    with pytest.raises(ValueError, match="the output differs by"):
        choose_kernel("pallas", CONFIG, replace(ROWS, other_lengths=(MASK.shape[1] // 2,)))


def test_a_kernel_that_fails_is_refused(monkeypatch):
    def failing(q, k, v, attention_mask, **options):
        raise RuntimeError("no such instruction")

    monkeypatch.setitem(kernels.KERNELS, "pallas", failing)
    with pytest.raises(ValueError, match=r"fails on this device \(no such instruction\)"):
        choose_kernel("pallas", CONFIG, ROWS)


def test_no_kernel_is_chosen_automatically_on_a_cpu():
    kernel, why = choose_kernel("auto", CONFIG, ROWS)
    assert kernel is None
    assert why == "cudnn needs a GPU, the run is for a CPU; pallas needs a GPU or a TPU, the run is for a CPU"


def test_the_choice_is_made_for_the_platform_of_the_program_and_not_of_this_process(monkeypatch):
    def never(*inputs, platform):
        raise AssertionError("no device of that platform is here")

    monkeypatch.setattr(kernels, "failed_test", never)
    rows = replace(ROWS, attention_mask=np.ones((2, 64), int))
    kernel, why = choose_kernel("auto", DROPPING, rows, platform="gpu", test=False)
    assert (kernel, why) == ("pallas", "supports the rows of this run, not tested")
    alone = replace(rows, packed=False)
    assert choose_kernel("auto", replace(CONFIG, dtype="bfloat16"), alone, platform="gpu", test=False)[0] == "cudnn"
    assert choose_kernel("auto", BertConfig.preset("base"), rows, platform="tpu", test=False)[0] == "pallas"


@pytest.mark.parametrize(
    ("config", "rows", "message"),
    [
        ({"num_attention_heads": 48}, {}, "needs heads of 32, 64 or 128 on a TPU, got 16"),
        ({}, {"other_lengths": (8192 + 128,)}, "no room on a TPU for 12 heads of rows of 8,320 tokens in float32"),
        ({"hidden_size": 832, "num_attention_heads": 13}, {"other_lengths": (2048,)}, "no room on a TPU for 13 heads"),
    ],
)
def test_a_tpu_gets_what_fits_in_its_fast_memory(config, rows, message):
    rows = replace(ROWS, attention_mask=np.ones((2, 512), int), **rows)
    kernel, why = choose_kernel("auto", BertConfig.preset("base", **config), rows, platform="tpu", test=False)
    assert kernel is None
    assert message in why


@pytest.mark.parametrize(
    ("size", "why"),
    [(8, "not tested"), (128, "not tested"), (48, "a power of two, got 48"), (256, "up to 128 on a GPU, got 256")],
)
def test_a_gpu_gets_heads_that_have_been_compiled_for_one(size, why):
    config = BertConfig.preset("base", num_attention_heads=768 // size)
    kernel, reason = choose_kernel("auto", config, ROWS, platform="gpu", test=False)
    assert kernel == ("pallas" if why == "not tested" else None)
    assert why in reason


@pytest.mark.parametrize(("tensor", "kernel"), [(1, "pallas"), (2, "pallas"), (4, None)])
def test_the_longest_rows_of_a_tpu_depend_on_the_heads_of_a_device(tensor, kernel):
    """Pairs of 64-wide heads fit; three heads, which are no pairs, do not."""
    rows = replace(ROWS, attention_mask=np.ones((2, 8192), int), tensor=tensor)
    config = BertConfig.preset("base", dtype="bfloat16")
    assert choose_kernel("auto", config, rows, platform="tpu", test=False)[0] == kernel


@pytest.mark.parametrize(
    ("name", "config", "rows", "message"),
    [
        ("pallas", {"attention_probs_dropout_prob": 0.1}, {"random_bits": "rbg"}, "`random_bits=hashed` only, got rbg"),
        ("cudnn", {"dtype": "bfloat16"}, {}, "needs a GPU"),
        ("pallas", {"num_attention_heads": 4}, {}, "heads whose size is a power of two, got 12"),
    ],
)
def test_unsupported_kernel_options_are_refused(name, config, rows, message):
    with pytest.raises(ValueError, match=message):
        choose_kernel(name, replace(CONFIG, **config), replace(ROWS, **rows))


def test_a_gpu_without_triton_gets_plain_matrix_products(monkeypatch):
    monkeypatch.setattr(kernels.attention_gpu, "is_available", lambda: False)
    kernel, why = choose_kernel("auto", BertConfig.preset("base"), ROWS, platform="gpu", test=False)
    assert kernel is None
    assert "pallas needs Pallas's Triton backend" in why


def test_cudnn_requires_half_precision_and_one_sequence_per_row():
    unsupported = partial(kernels.unsupported, "cudnn", platform="gpu", automatic=True)
    assert "has no dropout of attention weights" in unsupported(DROPPING, ROWS)
    assert "needs bfloat16, got float32" in unsupported(CONFIG, ROWS)
    half = replace(CONFIG, dtype="bfloat16")
    assert unsupported(half, ROWS) == "supports one sequence per row, and rows are packed"
    alone = replace(ROWS, packed=False)
    assert unsupported(half, alone) is None
    assert unsupported(half, replace(alone, seeds=2)) == "supports one seed, got 2"


def test_a_kernel_has_no_attention_weights_and_cudnn_no_dropout_of_them(params, ids):
    model = Bert(CONFIG, kernel="pallas")
    with pytest.raises(ValueError, match="does not return its weights"):
        model.apply({"params": params}, ids, MASK, output_attentions=True)
    dropping = Bert(DROPPING, kernel="cudnn")
    with pytest.raises(ValueError, match="has no dropout of attention weights"):
        dropping.apply({"params": params}, ids, MASK, rngs={"dropout": jax.random.key(0)})
