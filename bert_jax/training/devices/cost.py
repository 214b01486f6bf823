"""What a training step takes, told before it is taken: memory on a device, arithmetic, the largest batch that fits.

Memory is XLA's own account of the program it has compiled for these very devices. Arithmetic is counted where the step
is traced, in matrix products; all else is a few per cent of them. How fast they go is measured on one of them.
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

# Of the speed of a matrix product alone, what a training step reaches: as measured on CPUs, and usual on accelerators.
REACHED = {"cpu": 0.75}
REACHED_ELSEWHERE = 0.4
MORE = 4  # times as many rows in the second program that tells how memory grows
CLOSE = 1.02  # times as many rows are not worth another program
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
TRIES = 4  # programs, beyond those two, in search of the largest batch


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        parameters: its share of them.
        optimizer: its share of the optimizer's state.
        working: all else while a step runs: activations, gradients, the batch.
    """

    parameters: int
    optimizer: int
    working: int

    @property
    def total(self) -> int:
        return self.parameters + self.optimizer + self.working


def memory_of(program: Any, state: TrainState, layout: Layout | None = None) -> Memory:
    """Returns what a compiled step needs for a state, or its shapes, in the layout; None: on one device."""
    parameters, optimizer = (held(part, layout) for part in (state.all_params, state.optimizer_state))
    return Memory(parameters, optimizer, program_bytes(program) - parameters - optimizer)


def program_bytes(program: Any) -> int:
    """Returns the bytes that a compiled program needs on a device, its arguments and results among them."""
    account = program.memory_analysis()
    total = account.argument_size_in_bytes + account.output_size_in_bytes - account.alias_size_in_bytes
    return total + account.temp_size_in_bytes


def held(tree: Any, layout: Layout | None = None) -> int:
    """Returns the bytes of a tree, or its shapes, that are on one device."""
    if layout is None:
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    sizes = jax.tree.map(
        lambda x, sharding: math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize, tree, layout.shardings(tree)
    )
    return sum(jax.tree.leaves(sizes))


def memory_limit() -> int:
    """Returns the bytes that a device of this process may use; CPU devices share what the process may have."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *cgroup_limits()]) // jax.local_device_count()


def cgroup_limits() -> list[int]:
    """Returns the bytes that Linux lets this process have in its control groups, as containers and Slurm set them.

    A group's limit holds for all groups within it. A container may see its own at the top, wherever it says it is.

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
            limits += [int(text)] if text.isdigit() else []  # without a limit it says max
    return limits


def largest_batch(needed: Callable[[int], float], limit: int, unit: int) -> int:
    """Returns the largest multiple of `unit` rows that fits, to within a few per cent; 0 where `unit` does not.

    Memory grows with the rows nearly along a line. Two programs tell the line, and where it ends is tried.

    Args:
        needed: rows -> bytes on a device, infinite where no program can be made; compiles one.
        limit: bytes on a device.
    """
    low, low_bytes = unit, needed(unit)
    if low_bytes > limit:
        return 0
    high, high_bytes = MORE * unit, needed(MORE * unit)
    for _ in range(TRIES):
        steps = (limit - low_bytes) * (high - low) / (high_bytes - low_bytes) if high_bytes < math.inf else high - low
        guess = low + int(steps if high_bytes < math.inf else steps / 2) // unit * unit
        if high_bytes <= limit:
            low, low_bytes = high, high_bytes
        if guess <= low * CLOSE:
            break
        high, high_bytes = guess, needed(guess)
    return high if high_bytes <= limit else low


def matrix_flop(step: Callable, *shapes: Any) -> float:
    """Returns the floating-point operations of a function's matrix products, two for each multiplication."""
    return count(jax.make_jaxpr(step)(*shapes).jaxpr)


def count(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, product = (shape(x) for x in (equation.invars[0], equation.outvars[0]))
            total += 2.0 * math.prod(product) * math.prod(left[axis] for axis in contracted)
        inner = [x for x in jax.tree.leaves(equation.params, is_leaf=is_jaxpr) if is_jaxpr(x)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(count(getattr(x, "jaxpr", x)) for x in inner)
    return total


def shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def is_jaxpr(x: Any) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)


def matrix_speed(dtype: str, seconds: float = 0.5) -> float:
    """Measures how many floating-point operations a second one device does in a matrix product of the dtype."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: x @ x * 0.5)
    product(x).block_until_ready()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        product(x).block_until_ready()
        done += 1
    return 2.0 * size**3 * done / (time.perf_counter() - began)


def share_reached() -> float:
    """Returns the share of a matrix product's speed that a step is expected to reach."""
    return REACHED.get(jax.default_backend(), REACHED_ELSEWHERE)


def devices_of_their_own() -> int:
    """Returns how many devices compute side by side; those of a CPU share its cores."""
    return jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()
