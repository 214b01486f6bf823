"""Which attention kernel a run uses: the fastest that is right for its rows, its dropout, its dtype and its devices.

What a kernel cannot do is known beforehand; what it gets wrong is found by comparing it with plain matrix products on
the very device, on arrays of the run's own shapes, outputs and gradients. Whatever is in doubt is computed plainly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.attention import make_attention_mask
from bert_jax.functional.attention_kernels import BLOCK, KERNELS
from bert_jax.functional.precision import product

CHOICES = ("auto", "plain", *KERNELS)
TOLERANCE = {"bfloat16": 3e-2, "float32": 2e-3}  # of the largest value; matrix units round float32 as well
CHECKED_ROWS = 4


@dataclass(frozen=True)
class AttentionInputs:
    """What a run's rows are like.

    Attributes:
        attention_mask: int [B, T], of some batch.
        packed: whether there may be several sequences in a row.
        devices: how many one compiled program runs on.
        seeds: how many are trained together, by a step that is mapped over them.
        other_lengths: T of other batches, where they do not all have the same.
    """

    attention_mask: np.ndarray
    packed: bool
    devices: int
    seeds: int = 1
    other_lengths: tuple[int, ...] = ()


def choose_kernel(asked: str, config: BertConfig, rows: AttentionInputs) -> tuple[str | None, str]:
    """Returns a kernel, or None for plain matrix products, and why.

    Args:
        asked: `auto` takes the first kernel that is right; `plain` none; a kernel's name that one, or none at all.

    Raises:
        ValueError: a kernel was asked for by name, and it cannot do this or gets it wrong.
    """
    if asked not in CHOICES:
        raise ValueError(f"attention must be one of {', '.join(CHOICES)}; got {asked!r}")
    if asked == "plain":
        return None, "asked for"
    found = []
    for name in KERNELS if asked == "auto" else (asked,):
        wrong = unfit(name, config, rows, asked == "auto") or mistaken(name, config, rows)
        if wrong is None:
            return name, "agrees with plain matrix products"
        if asked != "auto":
            raise ValueError(f"attention {name}: {wrong}")
        found.append(f"{name}: {wrong}")
    return None, "; ".join(found)


def unfit(name: str, config: BertConfig, rows: AttentionInputs, automatic: bool) -> str | None:
    """Says why a kernel cannot do this, or returns None."""
    lengths, H = (rows.attention_mask.shape[1], *rows.other_lengths), config.hidden_size // config.num_attention_heads
    if (dropout := config.attention_probs_dropout_prob) > 0:
        return f"has no dropout of attention weights, and attention_probs_dropout_prob is {dropout}"
    if (automatic or name == "cudnn") and jax.default_backend() != "gpu":
        return f"is for GPUs, this is a {jax.default_backend()}"
    if name == "cudnn":
        if config.dtype != "bfloat16":
            return f"is for bfloat16, not for {config.dtype}"
        if rows.seeds > 1:
            return f"takes one seed, here are {rows.seeds}"
        return "takes one sequence a row" if rows.packed else None
    if rows.devices > 1:
        return f"runs on one device a program, here are {rows.devices} (--parallel pmap has a program for each)"
    for T in lengths:
        if T % min(BLOCK, T) or H & (H - 1):
            return f"wants rows of a multiple of {BLOCK} tokens and heads of a power of two, got {T} and {H}"
    return None


def mistaken(name: str, config: BertConfig, rows: AttentionInputs) -> str | None:
    """Tries a kernel on rows of the greatest length, the least and one between; says what is wrong, or returns None."""
    lengths = sorted({rows.attention_mask.shape[1], *rows.other_lengths})
    some = dict.fromkeys([lengths[-1], lengths[0], lengths[len(lengths) // 2]])
    return next(filter(None, (mistaken_at(T, name, config, rows) for T in some)), None)


def mistaken_at(T: int, name: str, config: BertConfig, rows: AttentionInputs) -> str | None:
    """Runs a kernel on rows of T tokens against plain matrix products; says what is wrong with it, or returns None.

    A few rows are enough, and the plain scores of many would take much memory: a kernel works on each row and each head
    by itself. What the first rows of a run may not show is made up, see `tried`.
    """
    mask, run = jnp.asarray(tried(rows, T)), lambda f: f
    if rows.seeds > 1:
        mask, run = jnp.stack([mask, mask]), jax.vmap
    N, H = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, wanted = (jax.random.normal(key, (*mask.shape, N, H), config.dtype) for key in keys)
    kept = (mask % 2 == 1)[..., None, None]  # every other sequence; its neighbours and the padding are changed
    changed = (jnp.where(kept, x, 1 - x) for x in (q, k, v))
    forward = jax.jit(run(KERNELS[name]))
    try:
        raw, *got = jax.device_get(with_gradients(run(KERNELS[name]), q, k, v, mask, wanted))
        _, *plain = jax.device_get(with_gradients(run(attend), q, k, v, mask, wanted))
        before, after = forward(q, k, v, mask), forward(*changed, mask)
        same = bool(jnp.where(kept, before == after, True).all())
    except Exception as error:  # a kernel may fail in as many ways as there are drivers
        return f"fails here ({str(error).splitlines()[0]:.200})"
    if not np.isfinite(np.asarray(raw, np.float32)).all():
        return "gets it wrong here: output is not finite everywhere, padding included"
    tolerance = TOLERANCE.get(config.dtype, TOLERANCE["float32"])
    for what, a, b in zip(("output", "gradient of q", "gradient of k", "gradient of v"), got, plain, strict=True):
        off = (
            np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max()
            / np.abs(np.asarray(b, np.float32)).max()
        )
        if not off <= tolerance:
            return f"gets it wrong here: {what} is off by {off:.1g} of its largest value"
    return None if same else "gets it wrong here: a sequence feels its neighbours or padding"


def tried(rows: AttentionInputs, T: int) -> np.ndarray:
    """Returns the mask [B, T] that a kernel is tried on: some of the run's rows, one that padding ends, one of padding.

    The row that padding ends holds three sequences where rows are packed, though the run's first rows may have but one.
    """
    some, place = rows.attention_mask[:CHECKED_ROWS, :T], np.arange(T)
    numbers = 1 + (place >= T // 5) + (place >= T // 2) if rows.packed else 1
    ended = numbers * (place < T - T // 7)
    return np.concatenate([some, [ended, 0 * ended]]).astype(some.dtype)


@jax.jit
def attend(q: Array, k: Array, v: Array, attention_mask: Array) -> Array:
    """Attention as plain matrix products, in the arrangement of the kernels: [B, T, N, H]."""
    scores = product("BTNH,BSNH->BNTS", q, k) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(
        jnp.where(make_attention_mask(attention_mask), scores, jnp.finfo(scores.dtype).min), axis=-1
    )
    return jnp.einsum("BNTS,BSNH->BTNH", weights.astype(q.dtype), v)


def with_gradients(f: Callable, q: Array, k: Array, v: Array, mask: Array, wanted: Array) -> tuple[Array, ...]:
    """Returns f's output, the same where there are tokens, and the gradients of its product with `wanted` there."""
    real = (mask != 0)[..., None, None]

    def along(q, k, v):
        raw = f(q, k, v, mask)
        out = jnp.where(real, raw, 0)
        return (out * wanted).astype(jnp.float32).sum(), (raw, out)

    gradients, outputs = jax.jit(jax.grad(along, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return *outputs, *gradients
