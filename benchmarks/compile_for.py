"""Compile the training step for GPUs and TPUs that are not there: memory, messages, and an estimate of its time.

The step is that of `train.py` with the flags after `--`. Nothing is run: memory and messages are those of the compiled
program, and times are computed from its kernels (`bert_jax.training.devices.roofline`), for random packed rows of eight
sequences per 512 tokens. The compilers come with the extras `cuda` and `tpu`; a row takes minutes.

    python benchmarks/compile_for.py gpu --record                      # the table for GPUs; `tpu` for TPUs
    python benchmarks/compile_for.py h100:8 -- --preset base --accumulate 4 --batch-size 2048
    python benchmarks/compile_for.py --check h100:2 v5e:2x2            # `make compile-check`

`--check` compiles small programs and fails if one has lost a property (`common.program_checks`), or if its memory is
more than compile_for.json has; `--update` writes that file.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import program_checks
from common.gpu_cases import Case, random_batch
from common.pretraining_step import real_token_flop
from common.results import make_parser, record

from bert_jax.cli.programs import parse_pretraining
from bert_jax.functional import attention_gpu, attention_tpu
from bert_jax.functional.attention_blocks import shared_blocks
from bert_jax.models import Bert
from bert_jax.pretraining.plan import phase_spec
from bert_jax.pretraining.program import make_layout
from bert_jax.training.devices.cost import Memory, memory_of
from bert_jax.training.devices.hlo import Collective, Module
from bert_jax.training.devices.roofline import Kernel, communication_seconds, kernels, step_seconds
from bert_jax.training.devices.targets import Target

STORED = Path(__file__).with_name("compile_for.json")
BASE_512 = "--preset base --max-length 512 --batch-size 64"
BASE_128 = "--preset base --max-length 128 --batch-size 256"
LARGE_512 = "--preset large --max-length 512 --batch-size 32"
BEFORE = "--attention plain --remat none --unroll 1"  # the defaults before the kernel
TABLES = {
    "gpu": [
        ("h100", f"{BASE_512} {BEFORE}"),
        ("h100", BASE_512),
        ("h100", f"{BASE_512} --unroll 1"),
        ("h200", BASE_512),
        ("h100:8", "--preset base --max-length 512 --batch-size 512 --unroll 1"),
        ("h100:8", "--preset base --max-length 512 --batch-size 2048 --accumulate 4 --unroll 1"),
        ("h100", f"{LARGE_512} {BEFORE}"),
        ("h100", LARGE_512),
        ("h100", f"{LARGE_512} --unroll 1"),
        ("h200", LARGE_512),
        ("h100", f"{BASE_128} {BEFORE}"),
        ("h100", BASE_128),
        ("h200", BASE_128),
    ],
    "tpu": [
        *((name, BASE_512) for name in ("v5e", "v6e")),
        ("v5p", "--preset base --max-length 512 --batch-size 256"),
        *(
            (name, "--preset large --max-length 512 --batch-size 128 --fsdp 4")
            for name in ("v5e:2x2", "v6e:2x2", "v5p")
        ),
    ],
}
COLUMNS = (
    "devices", "flags of train.py", "kernel, remat, layers", "state GiB", "other GiB", "sent MB", "ms", "tokens/s",
    "MFU",
)  # fmt: skip
ABOUT = (
    "Compiled for the devices and not run. Per device: memory of the state and of everything else, and bytes sent per "
    "step. Milliseconds, tokens/s of all devices and MFU (FLOP of the mathematics over the advertised bfloat16 peak) "
    "are estimates from the compiled kernels, and on TPUs, of which none has been measured, bounds that no program "
    "reaches. The dtype is bfloat16 throughout."
)
# A row's length is no other axis of the model, so that an array of scores is known by its shape.
CHECKED = "--preset tiny --max-length 384 --batch-size 16 --vocab-size 1024 --dtype bfloat16 --accumulate"
MICRO_BATCHES = (1, 4)
GIBI = 2**30


@dataclass(frozen=True)
class CompiledStep:
    """A step compiled for a target."""

    target: Target
    flags: str
    model: Bert
    rows: int
    length: int
    memory: Memory
    module: Module
    kernels: list[Kernel]
    collectives: tuple[Collective, ...]
    seconds_to_compile: float


def compile_step(device: str, flags: str) -> CompiledStep:
    """Compiles the step of train.py with `flags` for a device, see `Target.parse`."""
    target = Target.parse(device)
    settings = parse_pretraining([*flags.split(), "--plan", "--device", device])
    layout = make_layout(settings, target.devices())
    run = phase_spec(settings, settings.phases[0], layout, test_kernel=False)
    step: Any = layout.compile_step(run.step(run.model), run.state)
    start = time.perf_counter()
    program = step.lower(run.state, layout.shapes(run.batch(run.rows))).compile()
    seconds = time.perf_counter() - start
    module = Module.parse(program.as_text())
    memory = memory_of(program, run.state, layout)
    found = kernels(module)
    return CompiledStep(
        target, flags, run.model, run.rows, run.length, memory, module, found, module.collectives(), seconds
    )


def row(step: CompiledStep) -> str:
    """Returns a row of the table."""
    accelerator = step.target.accelerator
    devices = int(np.prod(step.target.shape))
    config = step.model.config
    batch = random_batch(Case("", step.length, True, step.rows // devices), config.vocab_size)
    flop = float(real_token_flop(config, batch))  # of one device
    of_kernels = step_seconds(
        step.kernels, accelerator, visited_fraction(batch["attention_mask"], accelerator.platform)
    )
    seconds = of_kernels + communication_seconds(step.collectives, accelerator)
    layers = "scanned" if step.model.unroll == 1 else "unrolled"
    bound = "" if accelerator.platform == "gpu" else "> "
    most = "" if accelerator.platform == "gpu" else "< "
    cells = [
        f"{devices} x {accelerator.name}",
        f"`{step.flags}`",
        f"{step.model.kernel or 'plain'}, {step.model.remat}, {layers}",
        f"{(step.memory.parameters + step.memory.optimizer) / GIBI:.2f}",
        f"{step.memory.working / GIBI:.2f}",
        f"{sum(one.bytes_sent for one in step.collectives) / 1e6:,.0f}",
        f"{bound}{seconds * 1e3:.1f}",
        f"{most}{step.rows * step.length / seconds:,.0f}",
        f"{most}{flop / seconds / accelerator.peak:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def visited_fraction(attention_mask: np.ndarray, platform: str) -> float:
    """Returns the fraction of the blocks of scores that the attention kernel computes: those that share a sequence."""
    length = attention_mask.shape[1]
    if platform == "tpu":
        queries = keys = attention_tpu.block_size(length)
    else:
        queries, keys = attention_gpu.FORWARD.queries, attention_gpu.FORWARD.keys
    first, end = np.moveaxis(shared_blocks(jnp.asarray(attention_mask), queries, keys), -1, 0)
    return float((end - first).mean() / (length // keys))


def table(cases: Sequence[tuple[str, str]]) -> str:
    """Compiles all cases, one after another; returns the table, and prints each row as soon as it is known."""
    lines = [ABOUT, "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for device, flags in cases:
        try:
            step = compile_step(device, flags)
            lines.append(row(step))
            print(f"{lines[-1]} compiled in {step.seconds_to_compile:.0f} s", file=sys.stderr, flush=True)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            lines.append(f"| {device} | `{flags}` | more than the device's memory |{' |' * (len(COLUMNS) - 3)}")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def check(device: str, stored: dict[str, Any], *, update: bool) -> list[str]:
    """Compiles a small step for a device, without and with accumulation; returns what is wrong with them."""
    once, accumulated = (compile_step(device, f"{CHECKED} {count}") for count in MICRO_BATCHES)
    problems = program_checks.sums_that_grow(once.collectives, accumulated.collectives)
    found: dict[str, Any] = {"jax": jax.__version__, "attention": once.model.kernel or "plain"}
    for step in (once, accumulated):
        problems += program_checks.float32_products(step.kernels)
        if step.model.kernel:
            heads = step.model.config.num_attention_heads
            problems += program_checks.stored_scores(step.kernels, heads=heads, length=step.length)
        if step.target.accelerator.platform == "gpu":
            problems += program_checks.unordered_scatters(step.module)
        found[step.flags] = step.memory.working
        took = f"compiled in {step.seconds_to_compile:.0f} s"
        print(f"{device} {step.flags}: {step.memory.working:,} bytes besides the state, {took}", flush=True)
    before = stored.get(device, {})
    if update:
        stored[device] = found
    elif before.get("jax") != jax.__version__:
        print(f"{device}: memory is not compared, {STORED.name} is of JAX {before.get('jax')}", flush=True)
    elif found["attention"] == "plain" != before["attention"]:
        problems.append(f"attention is {found['attention']}, it was {before['attention']}")
    else:
        for step in (once, accumulated):
            problems += program_checks.memory_growth(step.memory.working, before[step.flags])
    return [f"{device}: {problem}" for problem in dict.fromkeys(problems)]


def run_checks(devices: Sequence[str], *, update: bool) -> None:
    """Checks all devices; exits with 1 if anything is wrong."""
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    problems = [problem for device in devices for problem in check(device, stored, update=update)]
    if update:
        STORED.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    print("\n".join(problems) or f"compiled for {', '.join(devices)}: all checks passed", flush=True)
    sys.exit(bool(problems))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "devices", nargs="*", default=["gpu"], help="gpu or tpu = their tables, or names as of --device"
    )
    parser.add_argument("--check", action="store_true", help="check small programs instead")
    parser.add_argument("--update", action="store_true", help="with --check: store their memory")
    own, _, flags = " ".join(sys.argv[1:]).partition(" -- ")
    options: argparse.Namespace = parser.parse_args(own.split())
    jax.config.update("jax_platforms", "cpu")  # devices of this machine are left alone
    jax.config.update("jax_enable_compilation_cache", False)
    if options.check:
        run_checks(options.devices, update=options.update)
    for name in options.devices:
        cases = TABLES.get(name) or [(name, flags)]
        kind = name if name in TABLES else Target.parse(name).accelerator.name
        record(f"Compiled for {kind.upper() if name in TABLES else kind}, not run", table(cases))


if __name__ == "__main__":
    main()
