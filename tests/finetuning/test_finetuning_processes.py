"""Two processes fine-tune as one does with two devices, over a real network: Gloo on this machine's loopback."""

import json
import os
import signal

import pytest
import resumable
import small_finetuning as small
from resumable import free_address, start, wait_until
from safetensors.numpy import load_file

from bert_jax import finetuning
from bert_jax.finetuning.checks import check

FLAGS = [
    "--max-length", "32", "--batch-size", "16", "--epochs", "3", "--learning-rate", "2e-2", "--seeds", "2",
    "--fsdp", "2", "--log-every", "1", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def finetune(tmp_path_factory):
    """Runs finetune.py in `count` processes of `devices` devices each; returns what each printed, and its exit code.

    With `interrupt`, a run's folder, the last process gets SIGTERM after the first evaluation of that run.
    """
    place = small.make_place(tmp_path_factory.mktemp("place"))
    data = ["--model", place / "model", "--train", place / "train.tsv", "--dev", place / "dev.tsv"]

    def run(count, devices, output, *flags, interrupt=None):
        address = free_address()
        logs = [output.with_name(f"{output.name}-{index}.log") for index in range(count)]
        started = []
        for index, log in enumerate(logs):
            log.unlink(missing_ok=True)
            join = ["--distributed", "--coordinator", address, "--num-processes", count, "--process-id", index]
            command = ["classification", *data, *FLAGS, "--output", output, *flags, *(join if count > 1 else [])]
            started.append(start(resumable.finetune, place / "compiled", *map(str, command), devices=devices, log=log))
        if interrupt is not None:
            metrics = interrupt / "metrics.jsonl"
            wait_until(lambda: metrics.exists() and "eval_loss" in metrics.read_text(), started[-1])
            os.kill(started[-1].pid, signal.SIGTERM)
        for process in started:
            process.join(120)
        return [(process.exitcode, log.read_text()) for process, log in zip(started, logs, strict=True)]

    return run


def without_clock(run):
    return [{name: x for name, x in row.items() if name != "tokens_per_second"} for row in small.rows(run)]


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume(finetune, tmp_path):
    """The same metrics, predictions and parameters, to the bit, although the two processes are interrupted once.

    Neither of the two has a whole parameter: each holds one half (--fsdp 2).
    """
    one, two = tmp_path / "one", tmp_path / "two"
    [(code, printed)] = finetune(1, 2, one)
    assert code == 0, printed
    outputs = finetune(2, 1, two, interrupt=two)
    assert [code for code, _ in outputs] == [128 + signal.SIGTERM] * 2, outputs
    assert "to resume: " in outputs[0][1]
    outputs = finetune(2, 1, two, "--resume")
    assert [code for code, _ in outputs] == [0, 0], outputs
    assert "resuming from step" in outputs[0][1]
    assert "bert_jax.load" in outputs[0][1]
    assert "training: " not in outputs[1][1]

    assert without_clock(two) == without_clock(one)
    for file in ("predictions.jsonl", "scores.json", "best.json"):
        assert (two / file).read_text() == (one / file).read_text(), file
    parameters, wanted = load_file(two / "model.safetensors"), load_file(one / "model.safetensors")
    assert {name: x.tobytes() for name, x in parameters.items()} == {name: x.tobytes() for name, x in wanted.items()}
    assert json.loads((two / "training.json").read_text())["settings"].get("processes") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process_id": 0}, "`process_id` is only used with `distributed`"),
        ({"distributed": True, "sweep": True}, "`sweep` cannot be combined with `distributed`"),
    ],
)
def test_inconsistent_settings_are_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        check(finetuning.make_settings("classification", model="m", dev="d.tsv", train="t.tsv", **changes))
