"""How pretraining would scale, told by programs that are compiled for many devices and never run.

For each number of devices and each way of sharing a step, `train.py`'s own step is compiled for so many virtual CPU
devices, in a process of its own, from shapes alone. Read from the program are the matrix products and the messages of a
device, and, by XLA's account, its memory. What they take on a GPU or a TPU follows from the figures that its maker
gives: `fastest` is with messages wholly behind arithmetic, `in turn` with nothing at the same time. Both leave out all
but matrix products and messages, and take peaks as sold, so they are bounds that no run passes.

    python benchmarks/scaling.py                                   # BERT-large, 512 tokens, 8, 64 and 512 devices
    python benchmarks/scaling.py --devices 8 -- --preset base      # what follows -- goes to train.py
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common.hlo import KINDS, Message, Program
from common.timing import record

from bert_jax.pretraining.plan import amount

SETTINGS = ("--preset", "large", "--dtype", "bfloat16", "--max-length", "512", "--optimizer", "lamb")
LAYOUTS = {"data": {}, "data x fsdp 8": {"fsdp": 8}, "data x tensor 8": {"tensor": 8}}
ABOUT_PROGRAMS = (
    "Of one device: FLOP in matrix products (and their ratio to its share of what is traced); bytes; how many messages "
    "of each kind there are in a step, and the bytes it sends in them. Memory is that of a CPU's program, which keeps "
    "much in float32 that others keep in bfloat16, and has no attention kernel."
)
ABOUT_MACHINES = (
    "Milliseconds of arithmetic at the peak as sold, of messages over the fast links and beyond them, and of a step: "
    "with all three at once, and in turn. Everything else a step does is left out, so no run is faster. "
    "Then tokens/s of all devices together, the share of arithmetic where all is done in turn, and the most rows that "
    "memory holds."
)
COLUMNS = (
    "devices", "shared as", "arithmetic", "messages within", "beyond", "a step", "tokens/s", "arithmetic, in turn",
    "rows a device", "rows",
)  # fmt: skip
DUMP = {"xla_dump_hlo_pass_re": "spmd-partitioning", "xla_dump_hlo_as_long_text": True}


@dataclass(frozen=True)
class Machine:
    """What a maker says of a device.

    Attributes:
        speed: bfloat16 FLOP/s, dense.
        memory: bytes.
        joined: devices that the fast links join.
        within: bytes/s that a device can send over them.
        between: bytes/s that it can send beyond them.
    """

    name: str
    speed: float
    memory: float
    joined: int
    within: float
    between: float

    def seconds(self, messages: Sequence[Message]) -> tuple[float, float]:
        """Returns how long a device sends over the fast links, and beyond them.

        A group that reaches beyond is taken to do what NCCL does: first within, and beyond each device sends its part
        alone.
        """
        within = between = 0.0
        for message in messages:
            nodes = len({device // self.joined for device in message.group})
            near = len(message.group) / nodes
            share = message.times * message.rounds * message.size
            if message.kind == "collective-permute":
                within, between = (within + share, between) if nodes == 1 else (within, between + share)
                continue
            within += share * (near - 1) / near
            between += share / near * (nodes - 1) / nodes
        return within / self.within, between / self.between


# H200: nvidia.com/en-us/data-center/h200 (1,979 TFLOP/s are with sparsity; NVLink's 900 GB/s are both directions) and
# the DGX H200 user guide (eight to a node, one 400 Gb/s adapter each). TPUs: cloud.google.com/tpu/docs/v5p and /v6e
# (links' 1,200 and 800 GB/s are both directions; the data centre's 50 Gb/s a chip, and 25.6 Tb/s a pod of 256).
MACHINES = (
    Machine("H200", 989e12, 141e9, 8, 450e9, 50e9),
    Machine("TPU v5p", 459e12, 95e9, 8960, 600e9, 6.25e9),
    Machine("TPU v6e", 918e12, 32e9, 256, 400e9, 12.5e9),
)


@dataclass(frozen=True)
class Step:
    """A step as it was compiled, on one of `devices` devices.

    Attributes:
        rows: of a device's share of the batch.
        length: tokens of a row.
        counted: FLOP of the whole step where it is traced, divided by the devices.
        held: bytes of parameters and of the optimizer's state.
        working: bytes of all else.
    """

    devices: int
    rows: int
    length: int
    program: Program
    counted: float
    held: int
    working: int


def compiled(flags: Sequence[str], sizes: dict[str, int], rows: int) -> Step:
    """Compiles the step of `train.py` for all devices of this process and reads it.

    Args:
        flags: of train.py.
        sizes: of the mesh, `fsdp` and `tensor`.
        rows: a device has of the batch; a tensor group has so many times its devices together.
    """
    import jax

    from bert_jax.pretraining.program import run_spec
    from bert_jax.pretraining.settings import read_settings
    from bert_jax.training.devices import parallel
    from bert_jax.training.devices.cost import matrix_flop, memory_of

    jax.config.update("jax_enable_compilation_cache", False)  # a program that is not compiled is not written down
    layout = parallel.make_layout("mesh", **sizes)
    count = layout.mesh.size
    run = run_spec(read_settings(flags, description=""), layout)
    batch, pure = run.batch(rows * count), run.step(run.model)
    step: Any = layout.compile_step(pure, run.state)
    with tempfile.TemporaryDirectory() as folder:
        lowered = step.lower(run.state, layout.shapes(batch))
        program = lowered.compile(compiler_options={"xla_dump_to": folder, **DUMP})
        (text,) = Path(folder).glob("*after_spmd-partitioning*")
        read = Program.read(text.read_text())
    memory = memory_of(program, run.state, layout)
    counted = matrix_flop(lambda state, batch: pure(state, batch, None), run.state, batch) / count
    return Step(count, rows, run.length, read, counted, memory.parameters + memory.optimizer, memory.working)


def compiled_for(devices: int, *arguments: Any) -> Step:
    """Returns `compiled(*arguments)`, of a process that has so many devices."""
    os.environ |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(compiled, *arguments).result()


def program_row(name: str, step: Step) -> str:
    """Returns a line of the table of programs."""
    sent = []
    for kind in KINDS:
        some = [message for message in step.program.messages if message.kind == kind]
        times, size = sum(message.times for message in some), sum(message.sent for message in some)
        sent.append(f"{times:,}: {amount(size, 'B')}" if some else "")
    flop = f"{amount(step.program.flop, 'FLOP')} ({step.program.flop / step.counted:.3f})"
    cells = [step.devices, name, flop, amount(step.held, "B"), amount(step.working, "B"), *sent]
    return f"| {' | '.join(map(str, cells))} |"


def machine_row(name: str, step: Step, machine: Machine, bytes_a_row: float) -> str:
    """Returns a line of a machine's table."""
    arithmetic = step.program.flop / machine.speed
    within, between = machine.seconds(step.program.messages)
    turns, fastest = arithmetic + within + between, max(arithmetic, within, between)
    tokens = step.devices * step.rows * step.length
    fits = step.rows + (machine.memory - step.held - step.working) / bytes_a_row
    cells = [
        step.devices,
        name,
        *(f"{1e3 * seconds:.1f}" for seconds in (arithmetic, within, between)),
        f"{1e3 * fastest:.1f} to {1e3 * turns:.1f}",
        f"{amount(tokens / fastest, '')} to {amount(tokens / turns, '')}",
        f"{arithmetic / turns:.0%}",
        f"{max(int(fits), 0):,}",
        f"{max(int(fits), 0) * step.devices:,}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def report(flags: Sequence[str], steps: dict[tuple[int, str], Step], bytes_a_row: dict[str, float]) -> str:
    """Returns the tables as text."""
    first = next(iter(steps.values()))
    lines = [
        f"`train.py {' '.join(flags)}`, {first.rows} rows of {first.length} tokens a device; nothing was run.",
        "",
        ABOUT_PROGRAMS,
        "",
        f"| devices | shared as | FLOP | parameters, optimizer | all else | {' | '.join(KINDS)} |",
        f"|---{'|---' * (4 + len(KINDS))}|",
        *(program_row(name, step) for (_, name), step in steps.items()),
        "",
        ABOUT_MACHINES,
    ]
    for machine in MACHINES:
        sends = f"sends {amount(machine.within, 'B/s')} within {machine.joined:,} devices"
        lines += [
            "",
            f"{machine.name}: {amount(machine.speed, 'FLOP/s')}, {amount(machine.memory, 'B')}; {sends}, "
            f"{amount(machine.between, 'B/s')} beyond",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"|{'---|' * len(COLUMNS)}",
            *(machine_row(name, step, machine, bytes_a_row[name]) for (_, name), step in steps.items()),
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--rows", type=int, default=32, help="of the batch, for each device")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    parser.add_argument("flags", nargs="*", default=SETTINGS, help="of train.py, after --")
    options = parser.parse_args()
    steps, bytes_a_row = {}, {}
    for devices in options.devices:
        for name, sizes in LAYOUTS.items():
            step = steps[devices, name] = compiled_for(devices, options.flags, sizes, options.rows)
            if name not in bytes_a_row:  # the same for any number of devices
                more = compiled_for(devices, options.flags, sizes, 2 * options.rows)
                bytes_a_row[name] = (more.working - step.working) / options.rows
            print(f"{devices} devices, {name}: compiled", file=sys.stderr, flush=True)
    record(f"Scaling on paper: {' '.join(options.flags)}", report(options.flags, steps, bytes_a_row))


if __name__ == "__main__":
    main()
