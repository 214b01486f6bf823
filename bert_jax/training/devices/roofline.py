"""The time that a device needs for an optimized program, from what each of its kernels computes and moves.

A kernel takes the longest of its matrix products at the device's rate, its bytes at the rate of the device's memory,
and, for the attention kernel, the time per attention score that was measured; plus a constant to start it. Data in a
TPU's vector memory moves for nothing. What this leaves out: overlap of kernels, other elementwise arithmetic, and the
tuning of matrix products, which needs a device.

On GPUs the rates are the advertised ones times what kernels reached on an H100, so the sum is an estimate. No TPU has
been measured, so there the advertised rates are used and the sum is a lower bound.

Axes: B batch, T position, N heads, D hidden.

References: Williams et al., Roofline, 2009.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bert_jax.training.devices.accelerators import ACCELERATORS, Accelerator
from bert_jax.training.devices.hlo import ArrayType, Collective, Computation, Instruction, Module, dot_flop

# What kernels of a training step reach on an H100, as fractions of the advertised rates, and what starting one takes.
MATRIX_FRACTION = 0.66
BANDWIDTH_FRACTION = 0.87
LAUNCH_SECONDS = 2e-6
# Seconds per score [B, N, T, T] of the project's attention kernels on an H100, with dropout and all blocks visited
# (benchmarks/RESULTS.md, "The kernel alone": ms per layer / 64 x 12 x 512 x 512).
SCORE_SECONDS = {"forward_kernel": 2.18e-12, "backward_queries_kernel": 2.29e-12, "backward_keys_kernel": 2.51e-12}
# Matrix products per score, each of 2 H operations: q k' and p v; with gradients three and four, in one kernel five.
SCORE_PRODUCTS = {"forward_kernel": 2, "backward_queries_kernel": 3, "backward_keys_kernel": 4, "backward_kernel": 5}

NO_KERNEL = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "copy-done", "slice-done", "async-done", "async-update", "all-reduce-done", "all-gather-done",
    "collective-permute-done", "conditional",
}  # fmt: skip
READS_A_PART = ("dynamic-slice", "slice", "gather")


@dataclass(frozen=True)
class Kernel:
    """One instruction that a device executes.

    Attributes:
        flop: of its matrix products, two per multiply-add.
        bytes: read from and written to the device's memory.
        scores: attention scores that it computes; 0 unless it is an attention kernel.
        attention: the name of the attention kernel, or the empty string.
        times: executions per step.
        products: dtypes of the operands and the result of each matrix product.
    """

    instruction: Instruction
    flop: float
    bytes: float
    scores: float
    attention: str
    times: int
    products: tuple[tuple[str, str, str], ...]

    def seconds(self, accelerator: Accelerator, visited: float = 1.0) -> float:
        """Returns the seconds of one execution; `visited` = the fraction of its scores that is computed."""
        if accelerator.chip is None:
            return max(
                self.flop * (visited if self.scores else 1) / accelerator.peak, self.bytes / accelerator.bandwidth
            )
        of_memory = self.bytes / (accelerator.bandwidth * BANDWIDTH_FRACTION)
        if self.scores:
            h100 = ACCELERATORS["h100"].chip
            assert h100 is not None
            speed = accelerator.chip.cores * accelerator.chip.clock / (h100.cores * h100.clock)
            of_scores = visited * self.scores * SCORE_SECONDS[self.attention] / speed
            return max(of_scores, of_memory) + LAUNCH_SECONDS
        return max(self.flop / (accelerator.peak * MATRIX_FRACTION), of_memory) + LAUNCH_SECONDS


def kernels(module: Module) -> list[Kernel]:
    """Returns the kernels of an optimized program in the order of the text, loops multiplied.

    Raises:
        ValueError: a loop without a constant trip count.
    """
    return list(_kernels(module, module.entry, 1))


def step_seconds(found: Sequence[Kernel], accelerator: Accelerator, visited: float = 1.0) -> float:
    """Returns the seconds that a device computes in a step, without communication."""
    return sum(kernel.times * kernel.seconds(accelerator, visited) for kernel in found)


def communication_seconds(collectives: Sequence[Collective], accelerator: Accelerator) -> float:
    """Returns the seconds that a device sends, over the fast links and beyond them at the same time."""
    return max(accelerator.communication_seconds(collectives))


def _kernels(module: Module, name: str, times: int) -> Iterator[Kernel]:
    computation = module.computations[name]
    for instruction in computation.values():
        operation = instruction.operation
        if operation in NO_KERNEL:
            continue
        if operation in ("while", "call", "async-start"):
            for called in instruction.called:
                yield from _kernels(module, called, times * module.iterations(instruction))
            continue
        flop, products = _products(module, instruction, computation)
        attention, scores, of_scores = _attention(instruction, computation)
        moved = _bytes(module, instruction, computation)
        yield Kernel(instruction, flop + of_scores, moved, scores, attention, times, tuple(products))


# Arithmetic.


def _products(module: Module, instruction: Instruction, computation: Computation) -> tuple[float, list]:
    """Returns the FLOP and the dtypes of the matrix products of an instruction, inside a fusion too."""
    if instruction.operation == "fusion":
        inner = module.computations[instruction.called[0]]
        found = [_products(module, one, inner) for one in inner.values()]
        return sum(flop for flop, _ in found), [product for _, products in found for product in products]
    if instruction.operation == "dot":
        flop = dot_flop(instruction, computation)
    elif instruction.operation == "convolution":
        flop = convolution_flop(instruction, computation)
    elif instruction.operation == "custom-call" and "__cublas$" in instruction.attributes:
        flop = _cublas_flop(instruction, computation)
    else:
        return 0.0, []
    operands = (computation[name].arrays[0].dtype for name in instruction.operands[:2])
    return flop, [(*operands, instruction.arrays[0].dtype)]


def convolution_flop(instruction: Instruction, computation: Computation) -> float:
    """Returns the operations of a convolution, the form of all matrix products in a TPU's program.

    A batch axis of a product becomes a spatial axis with so much dilation that the window meets one element at each
    place: `size=16 stride=15 lhs_dilate=16` on 16 elements. Only elements that are met count.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None
    left, right, result = labels.groups()
    base, kernel = (computation[name].arrays[0].shape for name in instruction.operands[:2])
    output = instruction.arrays[0].shape
    flop = 2.0 * output[result.index("b")] * output[result.index("f")] * kernel[right.index("i")]
    for axis in sorted(set(result) - set("bf")):
        place = int(axis)
        size = _window(instruction, "size", place, kernel[right.index(axis)])
        stride = _window(instruction, "stride", place, 1)
        low = _window(instruction, "pad", place, 0)
        dilation = _window(instruction, "lhs_dilate", place, 1)
        spread = _window(instruction, "rhs_dilate", place, 1)
        met = 0
        for position in range(output[result.index(axis)]):
            at = (position * stride - low + step * spread for step in range(size))
            met += sum(x % dilation == 0 and 0 <= x // dilation < base[left.index(axis)] for x in at)
        flop *= met
    return flop


def _window(instruction: Instruction, name: str, place: int, default: int) -> int:
    """Returns one value of a convolution's window: `stride=15x1` at place 0 is 15, `pad=3_2x0_0` at 0 is 3."""
    window = re.search(rf"window=\{{[^}}]*\b{name}=([\d_x-]+)", instruction.attributes)
    return int(re.match(r"-?\d+", window[1].split("x")[place])[0]) if window else default  # pyright: ignore


def _cublas_flop(instruction: Instruction, computation: Computation) -> float:
    contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
    left = computation[instruction.operands[0]].arrays[0].shape
    inner = math.prod(left[int(axis)] for axis in re.findall(r"\d+", contracted[1] if contracted else ""))
    return 2.0 * math.prod(instruction.arrays[0].shape) * inner


def _attention(instruction: Instruction, computation: Computation) -> tuple[str, float, float]:
    """Returns the name of an attention kernel, its scores and its FLOP; ("", 0, 0) for other instructions.

    Its largest operands are [B, T, D], and [K, B, T, D] for K seeds together. The statistics of its scores say how many
    heads there are: they are float32 [B, N, T], or [B N / n, n, T] on a TPU, where a program computes n heads.
    """
    if instruction.operation != "custom-call":
        return "", 0.0, 0.0
    text = instruction.name + instruction.attributes
    name = next((name for name in SCORE_PRODUCTS if name in text), None)
    if name is None:
        return "", 0.0, 0.0
    arrays = [array for operand in instruction.operands for array in computation[operand].arrays] + instruction.arrays
    largest = max((array.shape for array in arrays if len(array.shape) >= 3), key=math.prod)
    *rows, T, D = largest
    of_rows = (x.shape for x in arrays if x.dtype == "f32" and len(x.shape) == len(largest) and x.shape != largest)
    statistics = next(shape for shape in of_rows if shape[-1] == T)
    N = math.prod(statistics[:-1]) // math.prod(rows)
    scores = float(math.prod(statistics) * T)
    return name, scores, scores * SCORE_PRODUCTS[name] * 2 * D / N


# Traffic.


def _bytes(module: Module, instruction: Instruction, computation: Computation) -> float:
    """Returns the bytes that an instruction reads from and writes to the device's memory."""
    operands = [computation[name] for name in instruction.operands if name in computation]
    operation = instruction.operation
    if operation == "fusion":
        return _fusion_bytes(module.computations[instruction.called[0]], instruction, operands)
    if operation == "dynamic-update-slice":  # in place: only the part is read and written
        return 2 * _in_memory(operands[1].arrays)
    if operation in READS_A_PART:
        return 2 * _in_memory(instruction.arrays)
    if operation == "copy-start":  # of two arrays, one of which may be on the chip
        return _in_memory(instruction.arrays[:2])
    if operation == "slice-start":  # (the source, the slice, a context)
        source, part = instruction.arrays[:2]
        return float(part.bytes * (2 - source.on_chip - part.on_chip))
    if operation.endswith("-start"):
        return 2 * sum(_in_memory(operand.arrays) for operand in operands)
    return _in_memory(instruction.arrays) + sum(_in_memory(operand.arrays) for operand in operands)


def _fusion_bytes(inner: Computation, instruction: Instruction, operands: Sequence[Instruction]) -> float:
    """Returns the bytes that a fusion reads and writes.

    Of an operand of which it only takes slices it reads those; an array that it updates in place it does not read.
    """
    users: dict[str, list[Instruction]] = defaultdict(list)
    for one in inner.values():
        for operand in one.operands:
            users[operand].append(one)

    def uses(name: str) -> Iterator[tuple[Instruction, str]]:
        for user in users[name]:
            if user.operation == "bitcast":
                yield from uses(user.name)
            else:
                yield user, name

    read = 0.0
    for one in inner.values():
        if one.operation != "parameter":
            continue
        outside = operands[int(one.arguments)]
        used = list(uses(one.name))
        if used and all(user.operation in READS_A_PART and user.operands[0] == name for user, name in used):
            taken = sum(user.bytes for user, _ in used)
            read += min(taken, outside.bytes) if _in_memory(outside.arrays) else 0
        elif not used or not all(
            user.operation in ("dynamic-update-slice", "scatter") and user.operands[0] == name for user, name in used
        ):
            read += _in_memory(outside.arrays)
    root = next(one for one in inner.values() if one.is_root)
    roots = [inner[name] for name in root.operands] if root.operation == "tuple" else [root]
    written = 0.0
    for one, array in zip(roots, instruction.arrays, strict=False):
        if not array.on_chip:
            written += _written(inner, one)
    return read + written


def _written(inner: Computation, result: Instruction) -> float:
    """Returns the bytes that a fusion writes for one result: all of it, or the part that it updates in place."""
    if result.operation == "bitcast" and result.operands[0] in inner:
        return _written(inner, inner[result.operands[0]])
    if result.operation == "dynamic-update-slice":
        return inner[result.operands[1]].bytes
    if result.operation == "scatter":
        return 2 * inner[result.operands[-1]].bytes
    return result.bytes


def _in_memory(arrays: Sequence[ArrayType]) -> float:
    return float(sum(array.bytes for array in arrays if not array.on_chip))
