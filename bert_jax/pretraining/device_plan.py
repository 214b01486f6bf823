"""What a run would take on devices that are not there (`train.py --plan --device h100:8`).

XLA compiles the run's real step for the devices. Memory and messages are those of that program; times are computed from
it by `training.devices.roofline`. Nothing is run, so nothing is measured.
"""

import time
from collections import Counter
from collections.abc import Generator, Iterator
from functools import partial

from bert_jax.messages import counted
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.plan import Programs, RunSpec, amount, header, memory_lines, mesh_shape, span
from bert_jax.pretraining.prepared import require_corpus
from bert_jax.pretraining.program import make_layout
from bert_jax.pretraining.settings import Settings
from bert_jax.training.devices.accelerators import Accelerator
from bert_jax.training.devices.cost import extrapolated_batch, matrix_flop
from bert_jax.training.devices.hlo import Collective, Module
from bert_jax.training.devices.roofline import communication_seconds, kernels, step_seconds
from bert_jax.training.devices.targets import Target

# The part of a device's memory that programs get; JAX's default on GPUs is XLA_PYTHON_CLIENT_MEM_FRACTION=0.75.
USABLE = {"gpu": 0.75, "tpu": 1.0}
ABOUT = {
    "gpu": "estimated from the compiled program, not measured",
    "tpu": "at the advertised rates, which no program reaches: no TPU has been measured",
}


def plan_for_device(settings: Settings) -> Iterator[str]:
    """Yields the lines of a plan for `settings.run.device`, each as soon as it is known; compiles and runs nothing.

    Raises:
        ValueError: settings that cannot be trained, or devices that the compiler does not know.
        ImportError: the compiler is not installed.
        OSError: no such corpus. A dataset on the hub is not looked up.
    """
    check(settings)
    assert settings.run.device is not None
    target = Target.parse(settings.run.device)
    require_corpus(settings)
    layout = make_layout(settings, target.devices())
    accelerator = target.accelerator
    phase_seconds: list[float] = []
    for phase in settings.phases:
        run = RunSpec.of(settings, phase, layout, test_kernel=False)
        yield header(run, phase, f"{layout.mesh.size} x {accelerator.name} ({mesh_shape(layout)})")
        yield "  compiling         for that machine, which need not be there; a large model takes many minutes"
        programs = Programs(run, layout)
        start = time.perf_counter()
        programs.needed(run.rows)
        yield (
            f"  compiled          in {span(time.perf_counter() - start)}: attention {run.model.kernel or 'plain'}, "
            f"remat {run.model.remat}, {run.model.unroll} of {run.model.config.num_hidden_layers} layers per iteration"
        )
        yield from memory_lines(
            programs,
            int(accelerator.memory * USABLE[accelerator.platform]),
            partial(extrapolated_batch, rows=run.rows),
            " (by a line through two programs)",
        )
        if not programs.text:
            continue
        of_step = yield from _time_lines(run, Module.parse(programs.text), accelerator, layout.mesh.size)
        phase_seconds.append(of_step * run.steps)
        yield f"  {counted(run.steps, 'step')}".ljust(20) + f"about {span(phase_seconds[-1])} at that rate"
    if 1 < len(settings.phases) == len(phase_seconds):  # no total without a phase that is too large to be compiled
        yield f"  all phases        about {span(sum(phase_seconds))}"


def _time_lines(run: RunSpec, module: Module, accelerator: Accelerator, devices: int) -> Generator[str, None, float]:
    """Yields lines about messages, arithmetic and time; returns the expected seconds of a step."""
    collectives = module.collectives()
    of_links = communication_seconds(collectives, accelerator)
    if collectives:
        yield f"  communication     {_messages(collectives)} per device and step: {of_links * 1e3:.3g} ms"
    # What a kernel or a recomputation adds is not work of the mathematics: the traced step has neither.
    step = run.step(run.model.clone(kernel=None, remat="none"))
    flop = matrix_flop(lambda state, batch: step(state, batch, None), run.state, run.batch(run.rows))
    of_kernels = step_seconds(kernels(module), accelerator)
    seconds = of_kernels + of_links
    rate = run.rows * run.length / seconds
    bound = "about" if accelerator.platform == "gpu" else "at most"
    yield f"  arithmetic        {amount(flop, 'FLOP')} per step, {amount(flop / devices, 'FLOP')} per device"
    yield (
        f"  step              {of_kernels * 1e3:.3g} ms of kernels, {of_links * 1e3:.3g} ms of messages; "
        f"{ABOUT[accelerator.platform]}"
    )
    yield (
        f"  expected          {bound} {rate:,.0f} tokens/s in full rows, "
        f"{flop / seconds / devices / accelerator.peak:.0%} of the peak of {amount(accelerator.peak, 'FLOP/s')} (MFU)"
    )
    return seconds


def _messages(collectives: tuple[Collective, ...]) -> str:
    """Returns the kinds of messages with their number and bytes: `3 all-reduce, 440 MB sent`."""
    times: Counter[str] = Counter()
    for one in collectives:
        times[one.kind] += one.times
    sent = sum(one.bytes_sent for one in collectives)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(times.items())) + f", {amount(sent, 'B')} sent"
