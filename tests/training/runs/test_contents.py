"""Overwriting removes what a run writes and nothing else, and no input lies in the folder of the run."""

import os
from pathlib import Path

import pytest

from bert_jax.training.runs.contents import clear_run, require_outside

OWN = (
    "training.json", "config.json", ".best.json.part", "metrics.jsonl", "metrics.damaged.jsonl", "saved.json",
    "model.safetensors", "scores.json", "mismatched_mistakes.md", "predictions.jsonl", "predictions.json",
    "tensorboard/events.out.tfevents.17.host.3", "checkpoints/30/state/d/a", "checkpoints/40.orbax-checkpoint-tmp-1/x",
    "checkpoints/damaged/20-2/state", "damaged/20/state", "seeds/5/vocab.txt", "sweep/3e-05-16-2/curves.png",
    "tracker.json", "wandb/offline-run-1/files/x", "sweep/3e-05-16-2/tracker.json",
)  # fmt: skip
OTHERS = (
    "notes.md", "data/train.tsv", "corpus.txt", "checkpoints/notes.txt", "damaged/why.txt", "seeds/5/README",
    "seeds/mine/config.json", "my_predictions.jsonl", "best.json.bak", "scores.json.d/x", "tensorboard/plots.png",
    "sweep/plan.txt", "curves.png/x",
)  # fmt: skip


def write_all(folder: Path, names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_what_a_run_writes_is_removed(tmp_path, capsys):
    write_all(tmp_path, (*OWN, *OTHERS))
    clear_run(tmp_path)
    assert files(tmp_path) == {"training.json", *OTHERS}
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}: the old run is removed; not removed, as no run writes it: ")
    assert said.endswith(f" and {len(OTHERS) - 5} more\n")


def test_folders_of_a_run_that_become_empty_are_removed_and_nothing_is_said(tmp_path, capsys):
    write_all(tmp_path, OWN)
    clear_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]
    assert capsys.readouterr().out == ""


def test_checkpoints_on_another_disk_are_removed_and_the_link_to_it_stays(tmp_path):
    write_all(tmp_path / "disk", ("30/state", "photos/a.jpg"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")
    (tmp_path / "run" / "model.safetensors").symlink_to(tmp_path / "disk" / "photos" / "a.jpg")
    clear_run(tmp_path / "run")
    assert files(tmp_path / "disk") == {"photos/a.jpg"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run with a file, a file beside it, and links between the two."""
    write_all(tmp_path, ("run/data/train.tsv", "run2/train.tsv", "train.tsv"))
    (tmp_path / "link-to-inside.tsv").symlink_to("run/data/train.tsv")
    (tmp_path / "run" / "link-to-outside.tsv").symlink_to("../train.tsv")
    (tmp_path / "same-run").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("output", ["run", "{}/run", "same-run", "run2/../run/."])
@pytest.mark.parametrize(
    "path",
    ["run", "run/data/train.tsv", "{}/run/data/train.tsv", "same-run/data/train.tsv", "run2/../run/data/train.tsv",
     "link-to-inside.tsv", "run/link-to-outside.tsv", "*-inside.tsv", "run/**/*.tsv", "~/run/data", "run/new/cache"],
)  # fmt: skip
def test_an_input_in_the_folder_of_the_run_is_refused(place, output, path):
    path = path.format(place)
    with pytest.raises(ValueError, match=r"`train`: .* is in `output`, the folder of the run"):
        require_outside(output.format(place), dev=(None, "train.tsv"), train=("train.tsv", path))


def test_other_inputs_pass(place):
    require_outside("run", train=("train.tsv", "run2/train.tsv", "*.csv", "glue:mrpc", "org/run", os.sep, ".", None))
