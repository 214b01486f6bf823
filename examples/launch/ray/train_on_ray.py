"""Trains on a Ray cluster: `bert-jax pretrain` or `bert-jax finetune` on all its machines, restarted if one is lost.

    python examples/launch/ray/train_on_ray.py --workers 4 --gpus 8 \
        pretrain --preset large --corpus '/shared/texts/*.txt' --cache-dir /shared/cache --output /shared/runs/large

A worker is a machine with all its accelerators. Ray Train connects the workers through `jax.distributed`, and each runs
the program with `--distributed --resume --begin`: the first attempt begins the run, later ones resume it.

References: https://docs.ray.io/en/latest/train/getting-started-jax.html.
"""

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Read when ray.train is imported: workers stay in their folder, and a line is printed once.
os.environ |= {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_TRAIN_V2_ENABLED": "1"}

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, get_preemption_info
from ray.train.v2.jax import JaxConfig, JaxTrainer

DRAIN_POLL = 5  # seconds
Options = argparse.Namespace


@ray.remote(num_cpus=0)
class Verdict:
    """Keeps an error that every restart would meet again, such as a wrong flag."""

    def __init__(self) -> None:
        self.error: str | None = None

    def set(self, error: str) -> None:
        self.error = self.error or error

    def get(self) -> str | None:
        return self.error


def train(config: dict[str, Any]) -> None:
    """Runs the program in a worker; Ray restarts all workers after an exception in one of them."""
    verdict = config["verdict"]
    if ray.get(verdict.get.remote()) is not None:
        return
    # JAX is imported here alone: the driver's machine needs no accelerator, and must not take one.
    from bert_jax.cli import programs
    from bert_jax.training.metric_logger import NotFinite
    from bert_jax.training.runs.interruption import Interrupted

    final = (ValueError, ImportError, FileNotFoundError, FileExistsError, PermissionError, NotFinite, SystemExit)
    threading.Thread(target=save_when_drained, daemon=True).start()
    run = {"pretrain": programs.pretrain, "finetune": programs.finetune}[config["program"]]
    try:
        run(config["flags"], prog=config["program"])
    except Interrupted as error:
        raise RuntimeError(f"{error}, and will be resumed") from None
    except final as error:
        ray.get(verdict.set.remote(" ".join(str(error).split())))
        raise RuntimeError(str(error)) from error


def save_when_drained() -> None:
    """Makes the run save and end when Ray is about to take one of its machines away."""
    while get_preemption_info() is None:
        time.sleep(DRAIN_POLL)
    os.kill(os.getpid(), signal.SIGTERM)  # JAX's coordination service passes it on to all processes


def make_trainer(options: Options, verdict: Any) -> JaxTrainer:
    """Returns the trainer of the options."""
    output = Path(output_of(options.flags))
    on_tpu = options.topology is not None
    resources = {"CPU": options.cpus} | ({"GPU": options.gpus} if options.gpus else {})
    scaling: dict[str, Any] = {"num_workers": options.workers, "resources_per_worker": resources}
    if on_tpu:
        scaling = {"num_workers": options.workers, "use_tpu": True, "topology": options.topology}
        scaling["accelerator_type"] = options.accelerator
    on_cpu = not (on_tpu or options.gpus)
    return JaxTrainer(
        train,
        train_loop_config={
            "verdict": verdict,
            "program": options.program,
            "flags": [*options.flags, "--distributed", "--resume", "--begin"],
        },
        # `use_gpu` makes Ray connect the workers, whatever their devices are.
        jax_config=JaxConfig(use_tpu=on_tpu, use_gpu=not on_tpu),
        scaling_config=ScalingConfig(**scaling, use_gpu=bool(options.gpus)),
        run_config=RunConfig(
            name=f"{output.name}-ray",  # Ray's own files, beside the run
            storage_path=str(output.parent),
            failure_config=FailureConfig(max_failures=options.max_failures),
            worker_runtime_env={"env_vars": {"JAX_PLATFORMS": "cpu"} if on_cpu else {}},
        ),
    )


def output_of(flags: list[str]) -> str:
    """Returns the folder of the run.

    Raises:
        ValueError: it is not given, or is not an absolute path.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output", default="")
    output = parser.parse_known_args(flags)[0].output
    if not os.path.isabs(output):
        raise ValueError(f"--output must be the absolute path of a folder that all machines share, got {output!r}")
    return output


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, required=True, help="number of machines")
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores per machine")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs per machine: all that it has")
    parser.add_argument("--topology", help="grid of a TPU slice, such as 4x4")
    parser.add_argument("--accelerator", help="with --topology: its kind, such as TPU-V6E")
    parser.add_argument("--max-failures", type=int, default=100, help="restarts; -1 = any number")
    parser.add_argument("program", choices=("pretrain", "finetune"))
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="flags of the program")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> str | None:
    """Returns None after a complete run, or the error."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        output_of(options.flags)
    except ValueError as error:
        return str(error)
    ray.init(ignore_reinit_error=True)
    verdict: Any = Verdict.remote()
    failed = None
    try:
        make_trainer(options, verdict).fit()
    except TrainingFailedError as error:
        failed = str(error)
    error: Any = ray.get(verdict.get.remote()) or failed
    ray.shutdown()  # the workers print nothing after the error
    return error


if __name__ == "__main__":
    sys.exit(main())
