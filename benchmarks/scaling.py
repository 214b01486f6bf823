"""Predict how pretraining scales, from programs that are compiled for many devices and never run.

For each number of devices and each kind of sharding, the step of `train.py` is compiled for that number of virtual CPU
devices, in a separate process, from shapes alone. The program gives each device's matrix multiplications and
collectives, and XLA gives its memory. The manufacturers' peak rates turn them into times on GPUs and TPUs. "Overlapped"
hides all communication behind computation, "serial" hides nothing. Everything but matrix multiplications and
collectives is left out, so both are lower bounds.

    python benchmarks/scaling.py                                   # BERT-large, 512 tokens, 8, 64 and 512 devices
    python benchmarks/scaling.py --devices 8 -- --preset base      # flags after -- go to train.py
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common.results import make_parser, record

from bert_jax.training.devices.accelerators import ACCELERATORS, Accelerator
from bert_jax.training.devices.hlo import COLLECTIVES, Program
from bert_jax.training.devices.plan import amount

TRAIN_FLAGS = ("--preset", "large", "--dtype", "bfloat16", "--max-length", "512", "--optimizer", "lamb")
MESHES = {"data": {}, "data x fsdp 8": {"fsdp": 8}, "data x tensor 8": {"tensor": 8}}
ABOUT_PROGRAMS = (
    "Per device: FLOP of the matrix multiplications (and their ratio to the traced step's FLOP divided by the number "
    "of devices); bytes of memory; and for each collective the number per step and the bytes sent. Memory is that of a "
    "CPU program, which keeps in float32 much that other devices keep in bfloat16, and has no attention kernel."
)
ABOUT_MACHINES = (
    "Milliseconds of computation at the manufacturer's peak, of communication over the fast links and beyond them, and "
    "of a step, overlapped to serial; lower bounds, because everything else in a step is left out. Then tokens/s of "
    "all devices together, the fraction of computation in a serial step, and the largest batch that fits in memory."
)
COLUMNS = (
    "devices", "sharding", "computation, ms", "fast links, ms", "beyond, ms", "step, ms", "tokens/s",
    "computation, serial", "most rows per device", "most rows",
)  # fmt: skip
DUMP = {"xla_dump_hlo_pass_re": "spmd-partitioning", "xla_dump_hlo_as_long_text": True}


MACHINES = tuple(ACCELERATORS[name] for name in ("h200", "v5p", "v6e"))


@dataclass(frozen=True)
class CompiledStep:
    """A step compiled for `devices` devices, seen from one of them.

    Attributes:
        rows: rows of the batch per device.
        length: tokens per row.
        traced_flop: FLOP of the whole traced step, divided by the devices.
        state_bytes: parameters and optimizer state.
        working_bytes: everything else.
    """

    devices: int
    rows: int
    length: int
    program: Program
    traced_flop: float
    state_bytes: int
    working_bytes: int


def compile_step(flags: Sequence[str], mesh_sizes: dict[str, int], rows: int) -> CompiledStep:
    """Compiles the step of `train.py` for all devices of this process and parses it.

    Args:
        flags: flags of train.py.
        mesh_sizes: sizes of the mesh axes `fsdp` and `tensor`.
        rows: rows per device; the devices of a tensor group share theirs.
    """
    import jax

    from bert_jax.cli.programs import parse_pretraining
    from bert_jax.pretraining.plan import phase_spec
    from bert_jax.training.devices import parallel
    from bert_jax.training.devices.cost import matrix_flop, memory_of

    jax.config.update("jax_enable_compilation_cache", False)  # a cached program would not be dumped
    layout = parallel.make_layout("mesh", **mesh_sizes)
    devices = layout.mesh.size
    settings = parse_pretraining(flags)
    run = phase_spec(settings, settings.phases[0], layout)
    batch = run.batch(rows * devices)
    pure_step = run.step(run.model)
    step: Any = layout.compile_step(pure_step, run.state)
    with tempfile.TemporaryDirectory() as folder:
        lowered = step.lower(run.state, layout.shapes(batch))
        executable = lowered.compile(compiler_options={"xla_dump_to": folder, **DUMP})
        (dump,) = Path(folder).glob("*after_spmd-partitioning*")
        program = Program.parse(dump.read_text())
    memory = memory_of(executable, run.state, layout)
    traced_flop = matrix_flop(lambda state, batch: pure_step(state, batch, None), run.state, batch) / devices
    state_bytes = memory.parameters + memory.optimizer
    return CompiledStep(devices, rows, run.length, program, traced_flop, state_bytes, memory.working)


def compile_for(devices: int, *arguments: Any) -> CompiledStep:
    """Returns `compile_step(*arguments)` from a new process with that number of devices."""
    os.environ |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(compile_step, *arguments).result()


def program_row(sharding: str, step: CompiledStep) -> str:
    """Returns a row of the table of programs."""
    cells = [
        str(step.devices),
        sharding,
        f"{amount(step.program.flop, 'FLOP')} ({step.program.flop / step.traced_flop:.3f})",
        amount(step.state_bytes, "B"),
        amount(step.working_bytes, "B"),
    ]
    for kind in COLLECTIVES:
        found = [collective for collective in step.program.collectives if collective.kind == kind]
        times = sum(collective.times for collective in found)
        size = sum(collective.bytes_sent for collective in found)
        cells.append(f"{times:,}: {amount(size, 'B')}" if found else "")
    return f"| {' | '.join(cells)} |"


def machine_row(sharding: str, step: CompiledStep, machine: Accelerator, bytes_per_row: float) -> str:
    """Returns a row of an accelerator's table."""
    computation = step.program.flop / machine.peak
    fast, slow = machine.communication_seconds(step.program.collectives)
    serial = computation + fast + slow
    overlapped = max(computation, fast, slow)
    tokens = step.devices * step.rows * step.length
    free_bytes = machine.memory - step.state_bytes - step.working_bytes
    most_rows = max(int(step.rows + free_bytes / bytes_per_row), 0)
    cells = [
        step.devices,
        sharding,
        *(f"{1e3 * seconds:.1f}" for seconds in (computation, fast, slow)),
        f"{1e3 * overlapped:.1f} to {1e3 * serial:.1f}",
        f"{amount(tokens / overlapped, '')} to {amount(tokens / serial, '')}",
        f"{computation / serial:.0%}",
        f"{most_rows:,}",
        f"{most_rows * step.devices:,}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def report(flags: Sequence[str], steps: dict[tuple[int, str], CompiledStep], bytes_per_row: dict[str, float]) -> str:
    """Returns all tables as Markdown."""
    first = next(iter(steps.values()))
    lines = [
        f"`train.py {' '.join(flags)}`, {first.rows} rows of {first.length} tokens per device; compiled, not run.",
        "",
        ABOUT_PROGRAMS,
        "",
        f"| devices | sharding | FLOP | parameters, optimizer | other memory | {' | '.join(COLLECTIVES)} |",
        f"|---{'|---' * (4 + len(COLLECTIVES))}|",
        *(program_row(sharding, step) for (_, sharding), step in steps.items()),
        "",
        ABOUT_MACHINES,
    ]
    for machine in MACHINES:
        lines += [
            "",
            f"{machine.name}: {amount(machine.peak, 'FLOP/s')}, {amount(machine.memory, 'B')}; sends "
            f"{amount(machine.fast_rate, 'B/s')} within {machine.joined:,} devices, "
            f"{amount(machine.slow_rate, 'B/s')} beyond",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"|{'---|' * len(COLUMNS)}",
            *(machine_row(name, step, machine, bytes_per_row[name]) for (_, name), step in steps.items()),
        ]
    return "\n".join(lines)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512], help="numbers of devices")
    parser.add_argument("--rows", type=int, default=32, help="rows of the batch per device")
    parser.add_argument("flags", nargs="*", default=TRAIN_FLAGS, help="flags of train.py, after --")
    options = parser.parse_args()
    steps = {}
    bytes_per_row = {}
    for devices in options.devices:
        for sharding, mesh_sizes in MESHES.items():
            step = compile_for(devices, options.flags, mesh_sizes, options.rows)
            steps[devices, sharding] = step
            if sharding not in bytes_per_row:  # the same for any number of devices
                doubled = compile_for(devices, options.flags, mesh_sizes, 2 * options.rows)
                bytes_per_row[sharding] = (doubled.working_bytes - step.working_bytes) / options.rows
            print(f"{devices} devices, {sharding}: compiled", file=sys.stderr, flush=True)
    record(f"Scaling, computed: {' '.join(options.flags)}", report(options.flags, steps, bytes_per_row))


if __name__ == "__main__":
    main()
