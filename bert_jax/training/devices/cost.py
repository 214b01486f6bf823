"""What a training step needs: memory per device, floating-point operations, and the largest batch that fits.

Memory is XLA's own analysis of the program that it compiled for these devices. Operations are those of the matrix
products in the traced step; everything else is a few per cent of them. Their speed is measured on one product.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from bert_jax.training.devices.parallel import Layout
from bert_jax.training.state import TrainState

# Speed of a training step relative to a single matrix product: on CPUs, and on an H100 (0.39 for base, 0.48 for large).
CPU_EFFICIENCY = 0.75
ACCELERATOR_EFFICIENCY = 0.4

GROWTH = 4  # the second program compiled by `largest_batch` has this many times the rows of the first
CLOSE_ENOUGH = 1.02  # a batch larger by this factor is not worth another compilation
MAX_PROGRAMS = 4  # besides the first two

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        parameters: of the parameters' shards.
        optimizer: of the optimizer state's shards.
        working: of everything else while a step runs: activations, gradients, the batch.
    """

    parameters: int
    optimizer: int
    working: int

    @property
    def total(self) -> int:
        return self.parameters + self.optimizer + self.working


def memory_of(program: Any, state: TrainState, layout: Layout | None = None) -> Memory:
    """Returns what a compiled step needs for a state, or its shapes; `layout` None = one device."""
    parameters = bytes_per_device(state.all_params, layout)
    optimizer = bytes_per_device(state.optimizer_state, layout)
    return Memory(parameters, optimizer, program_bytes(program) - parameters - optimizer)


def program_bytes(program: Any) -> int:
    """Returns the bytes that a compiled program needs on a device, including its arguments and results."""
    memory = program.memory_analysis()
    # A donated argument and the result that takes over its memory are counted in both; `alias` is their size.
    arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return arrays + memory.temp_size_in_bytes


def bytes_per_device(tree: Any, layout: Layout | None = None) -> int:
    """Returns the bytes of a tree of arrays or shapes on one device; `layout` None = unsharded."""
    if layout is None:
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    sizes = jax.tree.map(
        lambda x, sharding: math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize, tree, layout.shardings(tree)
    )
    return sum(jax.tree.leaves(sizes))


def memory_limit() -> int:
    """Returns the bytes that a device of this process may use; CPU devices divide the limit of the process."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_cgroup_limits()]) // jax.local_device_count()


def _cgroup_limits() -> list[int]:
    """Returns the memory limits, in bytes, of this process's control groups, which containers and Slurm set.

    A group's limit applies to all groups inside it. In a container the own group may be mounted at the top, although
    /proc names a longer path; so the limits of all parents are read, and those that do not exist are skipped.

    References: cgroups(7).
    """
    limits = []
    for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines() if OWN_CGROUPS.is_file() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = top / path.lstrip("/")
        for file in (group / name for group in (own, *own.parents)):
            text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
            if text.isdigit():  # `max` = no limit
                limits.append(int(text))
    return limits


def largest_batch(needed: Callable[[int], float], limit: int, unit: int) -> int:
    """Returns the largest multiple of `unit` rows that fits, to within a few per cent; 0 if `unit` rows do not fit.

    Memory grows almost linearly with the rows, so two programs give a line. Where it meets the limit is tried next.
    Example: with 8 rows needing 2 GB, 32 rows 5 GB and a limit of 10 GB, the next guess is 8 + 8 * 24 / 3 = 72 rows.

    Args:
        needed: rows -> bytes per device, infinite if no program can be compiled. Each call compiles a program.
        limit: bytes per device.
    """
    low = unit
    low_bytes = needed(low)
    if low_bytes > limit:
        return 0
    high = GROWTH * unit
    high_bytes = needed(high)
    for _ in range(MAX_PROGRAMS):
        if low_bytes < high_bytes < math.inf:
            more = (limit - low_bytes) * (high - low) / (high_bytes - low_bytes)
        elif high_bytes < math.inf:  # small batches may need the same memory
            more = GROWTH * (high - low)
        else:
            more = (high - low) / 2
        guess = low + int(more) // unit * unit
        if high_bytes <= limit:
            low, low_bytes = high, high_bytes
        if guess <= low * CLOSE_ENOUGH:
            break
        high = guess
        high_bytes = needed(high)
    return high if high_bytes <= limit else low


def extrapolated_batch(needed: Callable[[int], float], limit: float, unit: int, rows: int) -> int:
    """Returns the largest multiple of `unit` rows that fits, by a line through the memory of two batches; 0 if none.

    Nothing is compiled for the result, as in `largest_batch`, because compiling for another machine takes minutes.
    Example: with 32 rows needing 6 GB, 64 rows 10 GB and a limit of 20 GB, 64 + 10 / 0.125 = 144 rows.

    Args:
        needed: as in `largest_batch`; called for `rows` and half of them, or for twice as many if `rows` is `unit`.
        limit: bytes per device.
    """
    high = max(rows, 2 * unit)
    while needed(high) == math.inf:
        if high == unit:
            return 0
        high = max(high // 2 // unit, 1) * unit
    low = max(high // 2 // unit, 1) * unit
    if low == high:  # a single unit is all that compiles
        return unit if needed(unit) <= limit else 0
    bytes_per_row = (needed(high) - needed(low)) / (high - low)
    if bytes_per_row <= 0:  # no line: what is known to fit
        return high if needed(high) <= limit else 0
    return max(low + int((limit - needed(low)) / bytes_per_row) // unit * unit, 0)


def matrix_flop(step: Callable, *shapes: Any) -> float:
    """Returns the floating-point operations of a function's matrix products: 2 B D F for [B, D] x [D, F]."""
    return _count(jax.make_jaxpr(step)(*shapes).jaxpr)


def _count(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = _shape(equation.invars[0])
            product = _shape(equation.outvars[0])
            total += 2.0 * math.prod(product) * math.prod(left[axis] for axis in contracted)
        inner = [x for x in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr) if _is_jaxpr(x)]
        counts = [_count(getattr(x, "jaxpr", x)) for x in inner]
        if equation.primitive.name == "cond":  # one implementation per platform: the mathematics are those of the least
            total += min(counts)
            continue
        times = equation.params["length"] if equation.primitive.name == "scan" else 1  # layers, micro-batches
        total += times * sum(counts)
    return total


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)


def matrix_speed(dtype: str, seconds: float = 0.5) -> float:
    """Measures the floating-point operations per second of one device in a matrix product of the dtype."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: x @ x * 0.5)
    product(x).block_until_ready()
    start = time.perf_counter()
    count = 0
    while time.perf_counter() - start < seconds:
        product(x).block_until_ready()
        count += 1
    return 2.0 * size**3 * count / (time.perf_counter() - start)


def expected_efficiency() -> float:
    """Returns the expected speed of a training step relative to a matrix product."""
    return CPU_EFFICIENCY if jax.default_backend() == "cpu" else ACCELERATOR_EFFICIENCY


def parallel_devices() -> int:
    """Returns the number of devices that compute at the same time; the CPU devices of a process share its cores."""
    return jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()
