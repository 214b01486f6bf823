"""Chooses the attention kernel of a run: the first that supports its inputs and passes a test on its device.

What a kernel does not support is known: platforms, dropout, dtypes, row lengths. Whether it is correct is tested before
the run starts, on arrays with the run's shapes: outputs and gradients, with the run's dropout, against plain matrix
products, on the device itself. In doubt a run uses plain matrix products.

Axes: B batch, T position, N heads, H head size, D = N H.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional import attention_gpu, attention_tpu
from bert_jax.functional.attention import make_attention_mask, plain_attention
from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.messages import first_line
from bert_jax.training.state import run_key

CHOICES = ("auto", "plain", *KERNELS)
LONGEST_ROW = 8192  # tokens, on a TPU, whose kernel holds the keys of a whole row in fast memory
WIDEST_HEAD = 128  # on a GPU: blocks of 256 in float32 exceed the shared memory of an H100
TPU_HEAD_SIZES = (32, 64, 128)  # that Mosaic is known to compile
# Relative to the largest value. Matrix units also round float32: those of GPUs to 10 bits, of TPUs to bfloat16.
TOLERANCE = {"bfloat16": 3e-2, "float32": 2e-3}
CHECKED_ROWS = 4


@dataclass(frozen=True)
class AttentionInputs:
    """What the attention of a run computes on.

    Attributes:
        attention_mask: int [B, T], of one batch.
        packed: whether a row may hold several sequences.
        random_bits: the generator of dropout masks, see `training.state.run_key`.
        seeds: number of seeds trained together, by a step that is mapped over them.
        other_lengths: T of other batches, if it varies.
        tensor: number of devices that the heads are split over.
    """

    attention_mask: np.ndarray
    packed: bool
    random_bits: str = "hashed"
    seeds: int = 1
    other_lengths: tuple[int, ...] = ()
    tensor: int = 1


def choose_kernel(
    attention: str, config: BertConfig, inputs: AttentionInputs, *, platform: str, test: bool = True
) -> tuple[str | None, str]:
    """Returns the name of a kernel, or None for plain matrix products, and the reason.

    Args:
        attention: `auto` = the first kernel that works; `plain` = none; or the name of a kernel.
        platform: of the devices that the program is compiled for, `cpu`, `gpu` or `tpu` (`parallel.platform_of`). It
            need not be the platform of this process.
        test: whether to compare the kernel with plain matrix products on a device of this process. False if the program
            is compiled for a machine that is not this one: the choice is then by what the kernel supports.

    Raises:
        ValueError: the kernel that was named does not support the inputs or is wrong on this device.
    """
    if attention not in CHOICES:
        raise ValueError(f"`attention` must be one of {', '.join(CHOICES)}; got {attention!r}")
    if attention == "plain":
        return None, "as requested"
    reasons = []
    for name in KERNELS if attention == "auto" else (attention,):
        reason = unsupported(name, config, inputs, platform=platform, automatic=attention == "auto")
        if reason is None and test:
            reason = failed_test(name, config, inputs, platform=platform)
        if reason is None:
            return name, "agrees with plain matrix products" if test else "supports the rows of this run, not tested"
        if attention != "auto":
            raise ValueError(f"`attention={name}` {reason}")
        reasons.append(f"{name} {reason}")
    return None, "; ".join(reasons)


def unsupported(
    name: str, config: BertConfig, inputs: AttentionInputs, *, platform: str, automatic: bool = False
) -> str | None:
    """Returns why a kernel does not support the inputs on a platform, or None.

    Args:
        automatic: the kernel was not named. Pallas kernels also run on CPUs, but slowly, for tests.
    """
    if config.family.is_modern:
        return f"has no local attention, which {config.family.title} needs"
    if name == "cudnn" and platform != "gpu":
        return f"needs a GPU, the run is for a {platform.upper()}"
    if automatic and platform == "cpu":
        return "needs a GPU or a TPU, the run is for a CPU"
    dropout = config.attention_probs_dropout_prob
    if name == "cudnn":
        if dropout > 0:
            return f"has no dropout of attention weights, and its probability is {dropout}"
        if config.dtype != "bfloat16":
            return f"needs bfloat16, got {config.dtype}"
        if inputs.seeds > 1:
            return f"supports one seed, got {inputs.seeds}"
        return "supports one sequence per row, and rows are packed" if inputs.packed else None
    if dropout > 0 and inputs.random_bits != "hashed":
        return f"has dropout from `random_bits=hashed` only, got {inputs.random_bits}"
    H = config.hidden_size // config.num_attention_heads
    if platform == "tpu":
        return _unsupported_on_tpu(H, config, inputs)
    if platform == "gpu" and not attention_gpu.is_available():
        return "needs Pallas's Triton backend, which this version of JAX does not have"
    if platform == "gpu" and H > WIDEST_HEAD:
        return f"needs heads of up to {WIDEST_HEAD} on a GPU, got {H}"
    return f"needs heads whose size is a power of two, got {H}" if H & (H - 1) else None


def _unsupported_on_tpu(H: int, config: BertConfig, inputs: AttentionInputs) -> str | None:
    """Returns why the Pallas kernel of TPUs does not support the inputs, or None; H = the size of a head."""
    if H not in TPU_HEAD_SIZES:
        return f"needs heads of 32, 64 or 128 on a TPU, got {H}"
    N = config.num_attention_heads
    heads = N // inputs.tensor if N % inputs.tensor == 0 else N  # of a device
    T = max(inputs.attention_mask.shape[1], *inputs.other_lengths, 0)
    if T > LONGEST_ROW or not attention_tpu.fits(T, heads, H, jnp.dtype(config.dtype).itemsize):
        return f"has no room on a TPU for {heads} heads of rows of {T:,} tokens in {config.dtype}"
    return None


def failed_test(name: str, config: BertConfig, inputs: AttentionInputs, *, platform: str) -> str | None:
    """Tests a kernel on rows of the largest, the smallest and a medium length; returns what is wrong, or None."""
    lengths = sorted({inputs.attention_mask.shape[1], *inputs.other_lengths})
    for T in dict.fromkeys([lengths[-1], lengths[0], lengths[len(lengths) // 2]]):
        reason = _failed_test_at(T, name, config, inputs, platform)
        if reason is not None:
            return reason
    return None


def _failed_test_at(T: int, name: str, config: BertConfig, inputs: AttentionInputs, platform: str) -> str | None:
    """Compares a kernel with plain matrix products on rows of T tokens; returns what is wrong, or None.

    A few rows are enough, because a kernel treats each row and head by itself; and the plain scores [B, N, T, T] of
    many rows would need a lot of memory.
    """
    mask = jnp.asarray(_test_mask(inputs, T))  # [B, T]
    key = run_key(jax.random.key(1))
    if inputs.seeds > 1:  # two of the K seeds
        mask = jnp.stack([mask, mask])
        key = jax.random.split(key)
    map_seeds = jax.vmap if inputs.seeds > 1 else lambda f: f
    options = {"num_heads": config.num_attention_heads, "dropout_rate": config.attention_probs_dropout_prob}
    kernel = map_seeds(lambda q, k, v, mask, key: KERNELS[name](q, k, v, mask, key=key, **options))
    plain = map_seeds(
        lambda q, k, v, mask, key: plain_attention(q, k, v, make_attention_mask(mask), key=key, **options)[0]
    )
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, cotangent = (jax.random.normal(each, (*mask.shape, config.hidden_size), config.dtype) for each in keys)
    # Sequences 1, 3, 5, ... keep their values, and their neighbours 2, 4, ... and the padding get others: a kernel that
    # keeps sequences apart gives the same bits for 1, 3, 5, ...
    kept = (mask % 2 == 1)[..., None]
    changed = (jnp.where(kept, x, 1 - x) for x in (q, k, v))
    forward = jax.jit(kernel)
    try:
        raw, *got = jax.device_get(_with_gradients(kernel, q, k, v, mask, key, cotangent))
        _, *expected = jax.device_get(_with_gradients(plain, q, k, v, mask, key, cotangent))
        before = forward(q, k, v, mask, key)
        after = forward(*changed, mask, key)
        separate = bool(jnp.where(kept, before == after, True).all())
    except Exception as error:  # kernels fail in as many ways as there are drivers
        return f"fails on this device ({first_line(error):.200})"
    if not np.isfinite(np.asarray(raw, np.float32)).all():
        return "is wrong on this device: its output is not finite everywhere, padding included"
    tolerance = TOLERANCE["bfloat16" if "bfloat16" in config.dtype or platform == "tpu" else "float32"]
    names = ("output", "gradient of q", "gradient of k", "gradient of v")
    for what, *pair in zip(names, got, expected, strict=True):
        a, b = (np.asarray(x, np.float32) for x in pair)
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error <= tolerance:
            return f"is wrong on this device: the {what} differs by {error:.1g} of its largest value"
    return None if separate else "is wrong on this device: a sequence sees its neighbours or padding"


def _test_mask(inputs: AttentionInputs, T: int) -> np.ndarray:
    """Returns a mask [B, T]: some of the run's rows, one row that ends in padding and one of padding only.

    The first rows of a packed run may hold one sequence each, so the row that ends in padding holds three. With T = 14:
    1 1 2 2 2 2 2 3 3 3 3 3 0 0.
    """
    rows = inputs.attention_mask[:CHECKED_ROWS, :T]
    position = np.arange(T)
    sequence = 1 + (position >= T // 5) + (position >= T // 2) if inputs.packed else 1
    padded = sequence * (position < T - T // 7)
    return np.concatenate([rows, [padded, 0 * padded]]).astype(rows.dtype)


def _with_gradients(
    f: Callable, q: Array, k: Array, v: Array, mask: Array, key: Array, cotangent: Array
) -> tuple[Array, ...]:
    """Returns f's output, the same with zeros at padding, and the gradients of (the latter · cotangent)."""
    is_token = (mask != 0)[..., None]

    def scalar(q, k, v):
        raw = f(q, k, v, mask, key)
        out = jnp.where(is_token, raw, 0)
        return (out * cotangent).astype(jnp.float32).sum(), (raw, out)

    gradients, outputs = jax.jit(jax.grad(scalar, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return *outputs, *gradients
