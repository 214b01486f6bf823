"""How long a pretraining step takes to compile: layers in a loop or written out, the disk cache cold or warm.

Each line is a process of its own, and the processes take turns (A B A B ...). The same step in PyTorch stands beside:
under `torch.compile`, with a cold and a warm cache of its own, and eager. To compile is to trace and to compile, here
as JAX's ahead-of-time calls have it; there what the first step takes longer than the next. The first loss is counted
from when all is imported: the model is made, the step compiled and taken once.

    python benchmarks/compile_time.py --preset base --rows 2 --length 128
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common.pretraining_step import Ours, theirs
from common.processes import apart, options_of
from common.timing import record, spread
from train_step import full_batch

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.masking import predictions_per_row
from bert_jax.training.devices.compilation_cache import WORTH_KEEPING

SCANNED, UNROLLED, COMPILED, EAGER = (
    "bert_jax, layers in a loop",
    "bert_jax, layers written out",
    "torch.compile",
    "PyTorch eager",
)
AGAIN = 2  # steps after the first, to know what a step takes


def measure(case: str, preset: str, rows: int, length: int) -> dict[str, float]:
    """Returns the seconds of compiling and those until the first loss."""
    config = BertConfig.preset(preset)
    batch = full_batch(config, rows, length, predictions_per_row(length, 0.15))
    ours = case in (SCANNED, UNROLLED)
    if not ours:
        from transformers import BertForPreTraining  # noqa: F401 (imported here, before the clock runs)
    began = time.perf_counter()
    if ours:
        step = Ours(config, batch, unroll=config.num_hidden_layers if case == UNROLLED else 1)
    else:
        step = theirs(config, compiled=case == COMPILED)
    first, *others = (seconds(partial(step, batch)) for _ in range(1 + AGAIN))
    compiling = step.seconds if isinstance(step, Ours) else first - statistics.median(others)
    return {"compiling": compiling, "first loss": time.perf_counter() - began - sum(others)}


def caches(folder: Path) -> dict[str, str]:
    """Returns the environment that has both keep their programs in `folder`."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(WORTH_KEEPING),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = options_of(parser, measure)
    shape = {"preset": options.preset, "rows": options.rows, "length": options.length}
    cases = (SCANNED, UNROLLED) if options.alone else (SCANNED, UNROLLED, COMPILED, EAGER)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for case in cases:
            with tempfile.TemporaryDirectory() as cache:
                environment = caches(Path(cache))
                for state in ("",) if case == EAGER else ("cold", "warm"):
                    figures = apart(__file__, environment, case=case, **shape)
                    found.setdefault((case, state), []).append(figures)
    mine = {state: median(found[SCANNED, state], "compiling") for state in ("cold", "warm")}
    lines = [
        "| | disk cache | compiling, s | bert_jax, in a loop, is faster by | until the first loss, s |",
        "|---|---|---|---|---|",
    ]
    for (case, state), rounds in found.items():
        compiling, first = (spread([one[key] for one in rounds], 1) for key in ("compiling", "first loss"))
        ratio = f"{median(rounds, 'compiling') / mine[state]:.1f}x" if state and case != SCANNED else ""
        lines.append(f"| {case} | {state} | {compiling if state else ''} | {ratio} | {first} |")
    record(f"Compiling: {options.preset}, {options.rows} x {options.length}", "\n".join(lines))


def median(rounds: list[dict[str, float]], key: str) -> float:
    return statistics.median(one[key] for one in rounds)


if __name__ == "__main__":
    main()
