"""Properties that compiled training steps for GPUs and TPUs must keep, as functions of their text.

Each function returns what is wrong, one line each; an empty list = nothing.

Axes: B batch, T position, N heads.
"""

from collections.abc import Sequence

from bert_jax.training.devices.hlo import Collective, Module
from bert_jax.training.devices.roofline import Kernel

# Products with zeros and ones, by which `functional.lookup` sums the gradients of embeddings in float32.
SUMS_BY_ID = ("mij,mjd->mid", "mn,nd->md")
GROWTH = 1.05  # of the memory
NOT_GRADIENTS = 1.01  # of the sums: a step with micro-batches may sum some of its metrics in another way


def float32_products(kernels: Sequence[Kernel]) -> list[str]:
    """Finds products of two float32 arrays, which take a multiple of the time of bfloat16, in a bfloat16 program."""
    return [
        f"{kernel.instruction.name} multiplies float32 by float32: {kernel.instruction.scope or 'no scope'}"
        for kernel in kernels
        for left, right, _ in kernel.products
        if left == right == "f32" and not any(name in kernel.instruction.scope for name in SUMS_BY_ID)
    ]


def stored_scores(kernels: Sequence[Kernel], *, heads: int, length: int) -> list[str]:
    """Finds arrays of attention scores or masks [..., N, T, T] in memory, which the kernel is there to avoid."""
    return [
        f"{kernel.instruction.name} stores {array.dtype}{list(array.shape)}: {kernel.instruction.scope or 'no scope'}"
        for kernel in kernels
        for array in kernel.instruction.arrays
        if array.shape[-3:] == (heads, length, length)
    ]


def sums_that_grow(once: Sequence[Collective], accumulated: Sequence[Collective]) -> list[str]:
    """Compares the sums over devices of a step with those of a step that accumulates over several micro-batches."""

    def totals(collectives: Sequence[Collective]) -> tuple[int, int]:
        sums = [one for one in collectives if one.kind in ("all-reduce", "reduce-scatter")]
        return sum(one.times for one in sums), sum(one.times * one.size for one in sums)

    (count, size), (more, larger) = totals(once), totals(accumulated)
    if more <= count and larger <= size * NOT_GRADIENTS:
        return []
    return [f"sums over devices grow with accumulation: from {count} of {size:,} bytes to {more} of {larger:,} bytes"]


def unordered_scatters(module: Module) -> list[str]:
    """Finds scatters that a GPU adds in the order in which its threads arrive: two runs would differ."""
    return sorted(
        {
            f"{one.name} scatters {one.type} in no fixed order: {one.scope or 'no scope'}"
            for computation in module.computations.values()
            for one in computation.values()
            if one.operation == "scatter" and "unique_indices=true" not in one.attributes
        }
    )


def memory_growth(working: int, stored: int) -> list[str]:
    """Compares the bytes that a step needs besides its state with those of an earlier version."""
    if working <= stored * GROWTH:
        return []
    return [f"memory grew by {working / stored - 1:.0%}: {working:,} bytes, it was {stored:,}"]
