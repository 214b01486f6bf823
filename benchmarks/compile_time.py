"""Time the compilation of a pretraining step: layers in a loop or unrolled, with a cold or warm disk cache.

Each measurement is a separate process, and the candidates alternate (A B A B ...). The same step in PyTorch is timed
too: eager, and under `torch.compile` with a cold and a warm cache. Compilation includes tracing: in JAX it is what the
ahead-of-time calls take, in PyTorch the time of the first step less that of the next. Time to the first loss starts
after the imports and includes creating the model, compiling the step and running it once.

    python benchmarks/compile_time.py --preset base --rows 2 --length 128
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from common.pretraining_step import JaxStep, full_batch, torch_step
from common.processes import parse_options, run_in_new_process
from common.results import make_parser, record
from common.timing import seconds_of, spread

from bert_jax.config import BertConfig
from bert_jax.training.devices.compilation_cache import MIN_SECONDS

SCANNED = "bert_jax, layers in a loop"
UNROLLED = "bert_jax, layers unrolled"
COMPILED = "torch.compile"
EAGER = "PyTorch eager"
STEPS_AFTER_FIRST = 2  # to know what a step takes without compilation


def measure(case: str, preset: str, rows: int, length: int) -> dict[str, float]:
    """Returns the seconds of compilation and the seconds to the first loss, in this process."""
    config = BertConfig.preset(preset)
    batch = full_batch(config, rows, length)
    uses_jax = case in (SCANNED, UNROLLED)
    if not uses_jax:
        from transformers import BertForPreTraining  # noqa: F401 (lazily imported: now, before the clock runs)
    start = time.perf_counter()
    if uses_jax:
        step = JaxStep(config, batch, unroll=config.num_hidden_layers if case == UNROLLED else 1)
    else:
        step = torch_step(config, compiled=case == COMPILED)
    first, *others = (seconds_of(partial(step, batch)) for _ in range(1 + STEPS_AFTER_FIRST))
    compiling = step.compile_seconds if isinstance(step, JaxStep) else first - statistics.median(others)
    return {"compiling": compiling, "first loss": time.perf_counter() - start - sum(others)}


def cache_environment(folder: Path) -> dict[str, str]:
    """Returns the environment in which JAX and PyTorch keep compiled programs in `folder`."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(MIN_SECONDS),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }


def main() -> None:
    parser = make_parser(__doc__, preset="base", rows=2, length=128)
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each case (default: 1)")
    parser.add_argument("--alone", action="store_true", help="leave PyTorch out")
    options = parse_options(parser, measure)
    shape = {"preset": options.preset, "rows": options.rows, "length": options.length}
    cases = (SCANNED, UNROLLED) if options.alone else (SCANNED, UNROLLED, COMPILED, EAGER)
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                for cache in ("",) if case == EAGER else ("cold", "warm"):
                    seconds = run_in_new_process(__file__, cache_environment(Path(folder)), case=case, **shape)
                    measured.setdefault((case, cache), []).append(seconds)
    lines = [
        "| | disk cache | compilation, s | speedup of bert_jax in a loop | time to first loss, s |",
        "|---|---|---|---|---|",
    ]
    for (case, cache), rounds in measured.items():
        compiling = [one["compiling"] for one in rounds]
        first_loss = spread([one["first loss"] for one in rounds], 1)
        speedup = ""
        if cache and case != SCANNED:
            scanned = [one["compiling"] for one in measured[SCANNED, cache]]
            speedup = f"{statistics.median(compiling) / statistics.median(scanned):.1f}x"
        lines.append(f"| {case} | {cache} | {spread(compiling, 1) if cache else ''} | {speedup} | {first_loss} |")
    record(f"Compilation: {options.preset}, {options.rows} x {options.length}", "\n".join(lines))


if __name__ == "__main__":
    main()
