"""The documentation is true: Python runs; commands, flags, files and links exist; output is what is printed.

Python blocks run in a temporary folder, where small models and files have the names that the pages use.
"""

import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from functools import partial
from io import BytesIO, TextIOWrapper
from pathlib import Path

import documentation
import jax
import numpy as np
import optax
import pytest
import small_finetuning
import yaml
from documentation import PAGES, ROOT, blocks, cells, check_command, commands, prose, read_page
from hub_server import hub_server
from small_runs import write_corpus

import bert_jax
from bert_jax import finetuning, pretraining
from bert_jax.interop.loading import save_config
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.interruption import Interrupted
from bert_jax.training.state import TrainState

PYTHON = [block for page in PAGES for block in blocks(page, "python")]
SHELL = [block for page in PAGES for block in blocks(page, "shell")]
OUTPUT = [block for page in PAGES for block in blocks(page, "")]
REPOSITORY = ("bert_jax/", "tests/", "benchmarks/", "docs/", "examples/")
# What the settings of the pages are shrunk to.
SMALL = {
    "num_hidden_layers": 1, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 150,
    "phases": (), "max_length": 24, "batch_size": 8, "steps": 4, "warmup_steps": 2, "quiet": True,
    "fill_mask": ("i really [MASK] this film .", "a complete waste of [MASK] ."),
}  # fmt: skip


def make_run(folder: Path, model: Path) -> None:
    """Turns a model into the folder of a pretraining run with a checkpoint of step 1,000."""
    bert = bert_jax.load(model)
    state = TrainState.create(bert.params, optax.sgd(1.0), key=jax.random.key(0))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(state.replace(step=np.int32(1000)), {"row": 0})
    save_config(folder, bert.model)
    bert.tokenizer.save(folder)
    (folder / "metrics.jsonl").write_text('{"step": 500, "loss": 4.0}\n{"step": 1000, "loss": 3.0}\n')


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """The models and files that the pages name."""
    folder = tmp_path_factory.mktemp("originals")
    small_finetuning.make_model(folder / "MODEL", max_position_embeddings=128)
    make_run(folder / "runs" / "demo", folder / "MODEL")
    shutil.copytree(folder / "runs" / "demo", folder / "RUN")
    for name, head, changes in (
        ("finetuned", "BertForSequenceClassification", {"num_labels": 2}),
        ("sst2", "BertForSequenceClassification", {"num_labels": 2}),
        ("wnut17", "BertForTokenClassification", {"num_labels": 3, "label_names": ("O", "B-person", "I-person")}),
        ("squad", "BertForQuestionAnswering", {}),
        ("swag", "BertForMultipleChoice", {"num_labels": 1}),
    ):
        bert = bert_jax.load(folder / "MODEL", head=head, new_head=True, **changes)
        bert.save_pretrained(folder / "runs" / name)
    (folder / "texts").mkdir()
    write_corpus(folder / "texts" / "a.txt")
    shutil.copy(folder / "texts" / "a.txt", folder / "some.txt")
    (folder / "sst2").mkdir()
    small_finetuning.reviews(folder / "sst2" / "train.tsv", 24, 0, header="sentence\tlabel")
    small_finetuning.reviews(folder / "sst2" / "dev.tsv", 10, 1, header="sentence\tlabel")
    (folder / "GLUE").mkdir()
    (folder / "texts.txt").write_text("this is the [MASK] film .\n")
    return folder


@pytest.fixture
def place(originals, tmp_path, monkeypatch) -> Path:
    """The current folder, with those files. The programs accept the settings of the page, then shrink them."""
    folder = tmp_path / "place"
    shutil.copytree(originals, folder)
    monkeypatch.chdir(folder)
    pretraining_settings = pretraining.make_settings
    finetuning_settings = finetuning.make_settings
    cache = {"cache_dir": str(tmp_path / "cache")}

    def shrunk(preset=None, **fields):
        chosen = pretraining_settings(preset, **fields)
        # The architecture of a model that is continued cannot be changed.
        small = {name: SMALL[name] for name in ("steps", "quiet")} if chosen.run.model else SMALL
        return chosen.replace(**small, **cache)

    monkeypatch.setattr(pretraining, "make_settings", shrunk)
    monkeypatch.setattr(finetuning, "make_settings", partial(finetuning_settings, quiet=True))
    return folder


def run_python(page: str) -> None:
    """Runs the Python blocks of a page, one after another as a reader would."""
    names: dict = {}
    for block in blocks(page, "python"):
        code = "\n" * block.line + block.text  # so that a traceback shows the line of the page
        exec(compile(code, str(ROOT / page), "exec"), names)


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}))
def test_python_blocks_run(page, place, capsys):
    with hub_server():
        run_python(page)
    if page == "README.md":
        assert_same_words(shown_in_readme(), capsys.readouterr().out)


def shown_in_readme() -> str:
    (block,) = (block for block in blocks("README.md", "") if "runs/demo" in block.text)
    return block.text


def assert_same_words(shown: str, printed: str) -> None:
    """Every line of the README's output, apart from numbers and predicted words, is one that the program prints."""
    for line in shown.splitlines():
        if line and not re.match(r" {6}|.*\[MASK\] |.* \[MASK\]$|The model is in", line):
            fixed = without_numbers(line)
            assert fixed in {without_numbers(other) for other in printed.splitlines()}, line


def without_numbers(line: str) -> str:
    return re.sub(r"-?\d[\d,.]*", "#", line).replace("above", "below").rstrip()


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_shell_blocks_are_valid_and_what_they_name_exists(block, place, monkeypatch):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    found = list(commands(block.text.replace("$MODEL", "MODEL")))
    assert found or re.match(r"[A-Z]+=", block.text)
    for words in found:
        text = "where lives anna ?\tanna lives in oslo .\n" if "answer" in words else "this is the [MASK] film .\n"
        (place / "standard-input").write_text(text)
        with (place / "standard-input").open() as source:
            monkeypatch.setattr(sys, "stdin", source)
            check_command(words)


def check_shell(text: str) -> None:
    for words in commands(text):
        check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --no-such-flag 3",
        "python train.py --preset enormous",
        "python train.py --steps 10 --batch-size 0",
        "python train.py --preset tiny \\\n    --no-such-flag",
        "python finetune.py classification --model MODEL --no-such-flag",
        "python finetune.py no-such-task --model MODEL",
        "python no_such_file.py",
        "python benchmarks/soak.py --no-such-flag",
        "python -m pytest tests/no_such_test.py",
        "bert-jax no-such-command",
        "bert-jax pretrain --no-such-flag",
        "bert-jax finetune tokens --no-such-flag",
        "bert-jax classify runs/finetuned 'a film' --no-such-flag",
        "bert-jax inspect no-such-folder/no-such-model",
        "zcat texts.gz | bert-jax no-such-command | sort",
        "make no-such-target",
        "make train ARGS='--no-such-flag'",
        "make finetune ARGS=--no-such-flag",
        "pip install '.[no-such-extra]'",
        "pip install '.[nosuchextra]'",
        "bash benchmarks/no_such_file.sh",
        "no-such-program --help",
    ],
)
def test_a_wrong_command_is_found(line, place, capsys):
    with pytest.raises((ValueError, SystemExit)):
        check_shell(line)


def test_a_wrong_python_block_is_found(place, monkeypatch):
    wrong = documentation.Block("README.md", 1, "python", "import bert_jax\nbert_jax.load('runs/nothing/here')\n")
    monkeypatch.setitem(globals(), "blocks", lambda page, language: [wrong])
    with pytest.raises(FileNotFoundError):
        run_python("README.md")


def test_other_output_is_found():
    with pytest.raises(AssertionError):
        assert_same_words("masked LM loss 4.6 nats", "masked loss 4.6 nats")


def test_message_of_a_line_without_an_answer_is_the_documented_one(place, capsys):
    (block,) = blocks("docs/cli.md", "")
    Path("texts.txt").write_text("this is the [MASK] film .\n" * 16 + "this is the film .\n")
    with pytest.raises(ValueError, match="does not exist"):
        check_shell("bert-jax fill-mask runs/demo --file texts.txt")
    assert capsys.readouterr().err == block.text


def test_message_of_an_interrupted_run_is_the_documented_one():
    shown = next(block for block in blocks("docs/recovery.md", "") if "^C" in block.text).text
    assert f"train.py: {Interrupted(signal.SIGINT, 1247)}; to resume: python train.py" in shown


@pytest.mark.parametrize("block", OUTPUT, ids=lambda block: block.name)
def test_blocks_without_a_language_hold_no_commands(block):
    first = block.text.split(maxsplit=1)[0].removeprefix(".venv/bin/")
    assert first not in {"python", "bert-jax", "make", "pip", "git", "import", "from"}, "write ```shell or ```python"


def test_every_block_has_a_known_language():
    fences = sum(text.count("\n```") // 2 for text in ("\n" + read_page(page) for page in PAGES))
    assert fences == len(PYTHON) + len(SHELL) + len(OUTPUT)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, section = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert section in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_paths_in_the_text_exist(page):
    for words in re.findall(r"`([^`\n]+)`", prose(page)):
        path = words.split("::")[0].split(" ")[0]
        if path.startswith(REPOSITORY) and not re.search(r"[A-Z]{3,}(?!.*\.md)|\*", path):
            assert (ROOT / path).exists(), path


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """Every flag that a program, a launcher or a benchmark has."""
    from bert_jax.cli import main as command

    flags = {"--help"}
    helps = [["pretrain"], *(["finetune", task] for task in ("classification", "tokens", "squad", "multiple-choice"))]
    helps += [[name] for name in ("fill-mask", "classify", "tag", "answer", "embed", "attention", "convert", "push")]
    helps += [["inspect"], ["doctor"], ["prepare"]]
    for arguments in helps:
        flags |= set(re.findall(r"--[a-z][\w-]*", shown_help(command.main, [*arguments, "--help"])))
    for script in (*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples" / "launch").glob("*/*.py")):
        flags |= documentation.flags_of_benchmark(script.relative_to(ROOT).as_posix())
    return flags


def shown_help(main, arguments: list[str]) -> str:
    shown = BytesIO()
    stream = TextIOWrapper(shown, encoding="utf-8", write_through=True)  # closes `shown` when it is deleted
    with redirect_stdout(stream), suppress(SystemExit):
        main(arguments)
    return shown.getvalue().decode()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_flags_in_the_text_exist(page, known_flags):
    named = {
        flag for words in re.findall(r"`([^`\n]+)`", prose(page)) for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", words)
    }
    assert named <= known_flags


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 112


def test_readme_leads_to_every_page():
    text = prose("README.md")
    for page in ROOT.glob("docs/*.md"):
        assert f"(docs/{page.name}" in text, page


TUTORIALS = sorted(path.name for path in ROOT.glob("docs/tutorials/*.md") if path.name != "index.md")


def test_site_is_one_click_from_every_page_of_its_folders():
    indexes = ("docs/index.md", "docs/tutorials/index.md", "docs/concepts/index.md", "docs/api/index.md")
    listed = set()
    for index in indexes:
        for entry in re.findall(r"^```\{toctree\}\n(.*?)^```$", (ROOT / index).read_text(), re.M | re.S):
            names = [line for line in entry.splitlines() if line and not line.startswith(":")]
            listed |= {(ROOT / index).parent / f"{re.sub(r'.*<|>', '', name)}.md" for name in names}
    listed = {path.resolve() for path in listed}
    english = [path for path in ROOT.glob("docs/**/*.md") if not {"_build", "id"} & set(path.parts)]
    assert {path.resolve() for path in english} <= listed | {ROOT / "docs/index.md"}


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial_is_translated_with_the_same_code(name):
    code = cells(f"docs/tutorials/{name}")
    assert len(code) >= 5
    for number, cell in enumerate(code):
        compile(cell, f"{name}, cell {number + 1}", "exec")
    assert cells(f"docs/id/tutorials/{name}") == code


def test_translations_have_a_tutorial_and_outputs_stay_out_of_the_repository():
    assert sorted(path.name for path in ROOT.glob("docs/id/tutorials/*.md")) == TUTORIALS
    assert not [path for path in ROOT.glob("docs/**/*.ipynb") if "_build" not in path.parts]


def test_citation_is_valid_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert f"\n## {citation['version']}\n" in (ROOT / "CHANGELOG.md").read_text()
    for author in citation["authors"]:
        assert {"name"} <= author.keys() or {"family-names", "given-names"} <= author.keys()
