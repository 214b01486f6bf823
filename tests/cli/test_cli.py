"""`bert-jax` in a pipe: lines in, lines out, in order and at once; errors are one line."""

import json
import os
import subprocess
import sys
import warnings
from importlib.metadata import version

import jax
import numpy as np
import pytest
import small_pipelines as small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bert_jax
from bert_jax import pipelines
from bert_jax.cli.lines import columns, decoded, fields, portions, whole
from bert_jax.cli.main import main
from bert_jax.pipelines.pipeline import Pipeline

LINES = [*small.LINES, "", "owl"]
LABELLED = {"num_labels": len(small.LABELS), "label_names": small.LABELS}
MODELS = {
    "fill-mask": ("BertForMaskedLM", {}),
    "classify": ("BertForSequenceClassification", {"num_labels": 3}),
    "tag": ("BertForTokenClassification", LABELLED),
    "answer": ("BertForQuestionAnswering", {}),
    "embed": ("Bert", {}),
}
CLASSES = {
    "fill-mask": pipelines.FillMask,
    "classify": pipelines.TextClassifier,
    "tag": pipelines.TokenClassifier,
    "answer": pipelines.QuestionAnswerer,
    "embed": pipelines.Embedder,
}

EXTRAS = {"tag": {"aggregation": "first"}, "embed": {"pooling": None, "normalize": None}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a model for each command, by the command's name."""
    found = {}
    for name, (head, changes) in MODELS.items():
        found[name] = str(tmp_path_factory.mktemp(name))
        small.bert(head, **changes).save_pretrained(found[name])
    return found


@pytest.fixture(scope="module", autouse=True)
def load_once():
    """Keeps loaded pipelines, and so compiled programs, from one call of the command to the next."""
    load, loaded = Pipeline.load.__func__, {}

    def load_or_reuse(kind, source, **options):
        key = kind, source, *sorted(options.items())
        if key not in loaded:
            loaded[key] = load(kind, source, **options)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "load", classmethod(load_or_reuse))
        yield


@pytest.fixture
def run(ended):
    """Runs the command in this process; returns the lines on stdout."""

    def run(*arguments, stdin=""):
        code, lines, error = ended(*arguments, stdin=stdin.encode())
        assert (code, error) == (0, "")
        return lines

    return run


@pytest.fixture
def ended(capsys, monkeypatch, tmp_path):
    """Runs the command in this process; returns its exit code, the lines on stdout, and stderr."""

    def ended(*arguments, stdin):
        (tmp_path / "stdin").write_bytes(stdin)
        with open(tmp_path / "stdin") as file:
            monkeypatch.setattr(sys, "stdin", file)
            code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return ended


@pytest.fixture
def refusal(capsys):
    """Runs the command in this process; returns its exit code and the only line on stderr."""

    def refusal(*arguments):
        code = main(arguments)
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        return code, line

    return refusal


@pytest.mark.parametrize("name", CLASSES)
def test_json_lines_are_the_outputs_of_the_pipeline_in_order(name, folders, run):
    texts = [f"{line} [MASK]" for line in LINES] if name == "fill-mask" else LINES
    inputs = [*texts]
    if name == "answer":
        texts = [f"where is the owl ?\t{line}" for line in LINES if line]
        inputs = [{"question": "where is the owl ?", "context": line} for line in LINES if line]
    want = CLASSES[name].load(folders[name], max_length=None, progress=False, **EXTRAS.get(name, {}))(inputs)
    if name == "embed":
        want = want.tolist()
    got = run(name, folders[name], "--json", stdin="\n".join(texts))
    assert [json.loads(line) for line in got] == want


def test_texts_are_arguments_or_a_file_or_standard_input(folders, run, tmp_path):
    (tmp_path / "texts").write_text("\n".join(LINES) + "\n")
    want = run("classify", folders["classify"], *LINES)
    assert len(want) == len(LINES)
    assert run("classify", folders["classify"], "--file", str(tmp_path / "texts")) == want
    assert run("classify", folders["classify"], stdin="\r\n".join(LINES)) == want
    assert run("classify", folders["classify"], "--file", "-", stdin="\ufeff" + "\n".join(LINES)) == want


def test_fields_of_a_line_are_separated_by_tabs(folders, run):
    label, score = run("classify", folders["classify"], "an owl")[0].split("\t")
    assert label.startswith("LABEL_")
    assert 0 < float(score) <= 1
    assert len(run("classify", folders["classify"], "an owl", "--top", "3")[0].split("\t")) == 6
    assert len(run("fill-mask", folders["fill-mask"], "an [MASK] [MASK]", "--top", "2")[0].split("\t")) == 8
    chosen = run("fill-mask", folders["fill-mask"], "--targets", "owl,night", "an [MASK]", "a [MASK]")
    assert [sorted(line.split("\t")[::2]) for line in chosen] == [["night", "owl"]] * 2
    assert len(run("embed", folders["embed"], "an owl")[0].split("\t")) == 12
    found = [line.split("\t") for line in run("tag", folders["tag"], *LINES)]
    assert found
    for number, start, end, group, _, word in found:
        assert group in ("PER", "LOC")
        assert LINES[int(number) - 1][int(start) : int(end)].lower().replace(" ", "") == word.replace(" ", "")


def test_a_pair_is_two_columns(folders, run):
    pair = {"text": "an owl", "text_pair": small.SHORT}
    got = run("classify", folders["classify"], "--pairs", "--json", f"an owl\t{small.SHORT}")
    assert [json.loads(line) for line in got] == [
        pipelines.TextClassifier.load(folders["classify"], max_length=None, progress=False)(pair)
    ]


def test_a_context_is_all_of_a_file(folders, run, tmp_path):
    context = "\n".join(small.LINES)
    (tmp_path / "article").write_text(context)
    ask = "answer", folders["answer"], "where is the owl ?"
    (want,) = run(*ask, context)
    assert run(*ask, "--file", str(tmp_path / "article")) == [want]
    assert run(*ask, stdin=context) == [want]
    assert run(*ask, context, "--null-answer", "--null-threshold", "-99")[0].startswith("\t")


BAD = [
    ("fill-mask", (), b"an [MASK]", b"an owl", "the text has no [MASK]: 'an owl'"),
    ("classify", (), b"an owl", b"caf\xe9", "not UTF-8: byte 0xe9 after 3 bytes of the line"),
    ("classify", ("--pairs",), b"an\towl", b"an owl", "expected a line of text TAB text_pair, got 'an owl'"),
    ("answer", (), b"who ?\tan owl", b"who ?\t ", "the context must be a non-empty string, got ' '"),
    ("answer", (), b"who ?\tan owl", b"owl " * 40 + b"\towl", "a question of 40 tokens leaves too little of 23 tokens"),
    ("answer", (), b"who ?\tan owl", b"who ?\t\x00", "the context has no token in the vocabulary"),
]


@pytest.mark.parametrize(("name", "flags", "good", "bad", "message"), BAD)
def test_an_invalid_line_is_named_after_the_output_for_earlier_lines(name, flags, good, bad, message, folders, ended):
    code, lines, error = ended(name, folders[name], *flags, stdin=b"\n".join([good, good, bad, good]))
    assert (code, len(lines)) == (1, 2)
    assert error.startswith(f"bert-jax: standard input:3: {message}")
    assert len(error.splitlines()) == 1


def test_line_numbers_count_over_all_portions_of_a_file(folders, ended, monkeypatch, tmp_path):
    monkeypatch.setattr("bert_jax.cli.lines.PORTION", 2)
    monkeypatch.setattr("bert_jax.cli.lines.READ", 7)
    path = tmp_path / "texts"
    path.write_bytes(b"an owl\n" * 11 + b"\xff\nan owl\n")
    code, lines, error = ended("classify", folders["classify"], "--file", str(path), stdin=b"")
    assert (code, len(lines)) == (1, 11)
    assert error.startswith(f"bert-jax: {path}:12: not UTF-8")
    code, lines, error = ended("answer", folders["answer"], "who ?", "--file", str(path), stdin=b"")
    assert (code, lines) == (1, [])
    assert error.startswith(f"bert-jax: {path}:12: not UTF-8")


def test_an_argument_that_is_not_utf_8_is_an_error(folders, refusal):
    assert refusal("tag", folders["tag"], "caf\udce9") == (1, "bert-jax: not UTF-8: 'caf\\udce9'")


def test_an_error_about_an_option_names_no_line(folders, ended):
    for flags, message in (
        ("--top=0", "must be at least 1, got 0"),
        ("--targets=", "the target '' is not in the vocabulary"),
    ):
        code, lines, error = ended("fill-mask", folders["fill-mask"], flags, stdin=b"an [MASK]")
        assert (code, lines) == (1, [])
        assert message in error
        assert "standard input" not in error


# Reading lines


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="aé\u2028 \t", max_size=9), max_size=9), st.booleans())
def test_only_line_feeds_end_a_line(lines, closed):
    text = "\n".join(lines) + ("\n" if closed and lines else "")
    receive, send = os.pipe()
    os.write(send, text.encode())
    os.close(send)
    found = [decoded(line) for portion in portions(receive) for line in portion]
    os.close(receive)
    # An empty last line without a line feed does not count.
    assert found == (lines if closed or not lines or lines[-1] else lines[:-1])


def test_a_slow_pipe_is_read_line_by_line():
    receive, send = os.pipe()
    os.set_blocking(receive, False)  # a read that would wait raises an error instead
    with open(receive, "rb"), open(send, "wb", buffering=0) as writer:
        lines = portions(receive)
        writer.write(b"first\nsec")
        assert next(lines) == [b"first"]
        writer.write(b"ond\nthird\n")
        assert next(lines) == [b"second", b"third"]


def test_a_file_is_read_in_portions(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"a\n" * 200_000)
    with open(path, "rb") as file:
        sizes = [len(portion) for portion in portions(file.fileno())]
        assert sum(sizes) == 200_000
        assert 4096 <= max(sizes) < 40_000
        file.seek(0)
        assert whole(file.fileno(), str(path)) == "\n".join("a" * 200_000)


def test_white_space_in_a_field_becomes_a_blank():
    assert fields("a\tb\nc", 1, 0.5) == "a b c\t1\t0.500000"
    assert columns("a\tb\tc", ("x", "y")) == {"x": "a", "y": "b\tc"}
    with pytest.raises(ValueError, match="expected a line of x TAB y, got 'a'"):
        columns("a", ("x", "y"))


# The command as a process


def test_the_command_ends_quietly_if_its_reader_closes_the_pipe(folders, tmp_path):
    (tmp_path / "texts").write_text("an owl\n" * 20_000)
    command = [sys.executable, "-m", "bert_jax.cli.main", "embed", folders["embed"], "--file", str(tmp_path / "texts")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.readline().split("\t")) == 12
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_help_ends_quietly_if_its_reader_closes_the_pipe():
    command = [sys.executable, "-m", "bert_jax.cli.main", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_the_name_of_a_file_is_read_as_a_text_with_a_note(folders, ended, tmp_path):
    (tmp_path / "texts").write_text("an owl")
    name = str(tmp_path / "texts")
    code, lines, error = ended("classify", folders["classify"], name, stdin=b"")
    assert (code, len(lines)) == (0, 1)
    assert error == f"bert-jax: note: {name} is a file, but is read as a text; to read the file, use --file {name}\n"


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_the_programs_are_commands(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: bert-jax {name} ")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f" {name} " in capsys.readouterr().out


def test_help_does_not_import_jax():
    program = """
import sys
from bert_jax.cli.main import main
try:
    main(["classify", "--help"])
finally:
    assert not [name for name in ("jax", "flax", "tokenizers") if name in sys.modules]
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "--top" in run.stdout


def test_an_error_is_one_line_and_exit_code_1(folders, refusal, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert refusal("embed", nowhere, "owl") == (
        1, f"bert-jax: {nowhere}: no config.json here; expected the folder of a run or of a model"
    )  # fmt: skip
    assert refusal("classify", folders["embed"], "owl")[1] == (
        f"bert-jax: TextClassifier needs a BertForSequenceClassification; {folders['embed']} is a BertModel: "
        "fine-tune it first, with bert-jax finetune classification --model ..."
    )
    assert refusal("fill-mask", folders["fill-mask"], "owl")[1] == "bert-jax: the text has no [MASK]: 'owl'"
    assert refusal("embed", folders["embed"], "--file", nowhere)[0] == 1
    assert refusal("embed", folders["embed"], "owl", "--file", nowhere)[1].endswith("or in --file, not both")
    assert refusal("answer", folders["answer"], "a", "b", "c")[1].endswith(
        "expected a question, and a context or --file"
    )


def test_closed_standard_input_or_output_is_an_error(refusal, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", None)
        code, line = refusal("classify", "anything")
        assert (code, line.split(":")[1]) == (1, " standard input is closed")
        patch.setattr(sys, "stdout", None)
        assert main(["inspect", "anything"]) == 1
    assert "standard output is closed" in capsys.readouterr().err


def test_an_error_of_the_system_begins_with_the_name_of_the_file(refusal, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert refusal("classify", "anything", "--file", nowhere) == (1, f"bert-jax: {nowhere}: No such file or directory")
    assert refusal("inspect", nowhere)[1].startswith(f"bert-jax: {nowhere}: no config.json here")


def test_a_command_line_that_cannot_be_read_has_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["embed", "--no-such-flag"])
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "bert-jax: the command must come first; choose one of fill-mask, classify, tag, "),
        (["--json", "embed"], "bert-jax: the command must come first; choose one of fill-mask, classify, tag, "),
        (["clasify", "MODEL", "owl"], "bert-jax: unknown command 'clasify'; did you mean classify?"),
        (["fillmask"], "bert-jax: unknown command 'fillmask'; did you mean fill-mask?"),
        (["owl"], "bert-jax: unknown command 'owl'; choose one of fill-mask, classify, tag, "),
        (["finetune"], "bert-jax finetune: the task must come first; choose one of classification, tokens, "),
        (["finetune", "--model", "M", "squad"], "bert-jax finetune: the task must come first; choose one of "),
        (["finetune", "token", "--model", "M"], "bert-jax finetune: unknown task 'token'; did you mean tokens?"),
        (["fill-mask", "--modl", "M"], "bert-jax fill-mask: there is no flag '--modl'; MODEL is an argument without"),
        (["classify", "M", "--fil=x"], "bert-jax classify: there is no flag '--fil'; did you mean --file?"),
        (["doctor", "--modl", "M"], "bert-jax doctor: there is no flag '--modl'; did you mean --model?"),
        (["embed", "M", "--owl"], "bert-jax embed: there is no flag '--owl'; see bert-jax embed --help"),
        (
            ["finetune", "tokens", "--modl", "M"],
            "bert-jax finetune tokens: there is no flag '--modl'; did you mean --model",
        ),
        (["pretrain", "--corpu", "x"], "bert-jax pretrain: there is no flag '--corpu'; did you mean --corpus?"),
    ],
)
def test_an_unknown_command_task_or_flag_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(message)


def test_the_version_is_that_of_the_installed_package(run):
    assert run("--version") == [f"bert-jax {version('bert_jax')}"]
    assert bert_jax.__version__ == version("bert_jax")


def test_warnings_are_one_line(folders, capsys, tmp_path):
    path = tmp_path / "copy"
    bert_jax.load(folders["fill-mask"]).save_pretrained(path)
    config = json.loads((path / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (path / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["embed", str(path), "owl"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("bert-jax: warning: ") for line in lines)


# Checkpoints


def test_convert_writes_the_same_model(folders, run, tmp_path):
    said = run("convert", folders["tag"], str(tmp_path / "model"))
    assert said == [f"BertForTokenClassification in {tmp_path / 'model'}"]
    want, got = bert_jax.load(folders["tag"]), bert_jax.load(tmp_path / "model")
    assert jax.tree.all(jax.tree.map(np.array_equal, got.params, want.params))
    assert got.config == want.config
    run("convert", folders["tag"], str(tmp_path / "half"), "--dtype", "float16")
    assert (tmp_path / "half/model.safetensors").stat().st_size < (tmp_path / "model/model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "vocab.txt"])
def test_convert_replaces_a_model_only_where_that_is_asked_for(name, folders, ended, run, tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / name).write_text("precious")
    code, _, error = ended("convert", folders["tag"], str(folder), stdin=b"")
    assert code == 1
    assert f"{folder / name} is there already: choose another folder, or set --overwrite" in error
    assert (folder / name).read_text() == "precious"
    assert [path.name for path in folder.iterdir()] == [name]
    run("convert", folders["tag"], str(folder), "--overwrite")
    assert bert_jax.load(folder).config == bert_jax.load(folders["tag"]).config


def test_convert_keeps_files_that_are_no_model(folders, run, tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    run("convert", folders["tag"], str(tmp_path))
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_inspect_counts_parameters(folders, run):
    (line,) = run("inspect", folders["classify"], "--json")
    found, bert = json.loads(line), bert_jax.load(folders["classify"])
    for part, tree in bert.params.items():
        assert found["parameters"][part] == sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert found["parameters"]["total"] == sum(leaf.size for leaf in jax.tree.leaves(bert.params))
    assert found["model"] == "BertForSequenceClassification"
    assert found["config"]["hidden_size"] == 12
    assert "BertForSequenceClassification" in found["heads"]
    assert "BertForMaskedLM" not in found["heads"]
    assert "BertForMultipleChoice" not in found["heads"], "its classifier has three outputs, not one"
    text = "\n".join(run("inspect", folders["classify"]))
    assert f"{found['parameters']['total']:,}" in text
    assert "loads as BertModel" in text


def test_inspect_lists_multiple_choice_for_a_classifier_with_one_output(run, tmp_path):
    small.bert("BertForMultipleChoice").save_pretrained(tmp_path)
    (line,) = run("inspect", str(tmp_path), "--json")
    assert "BertForMultipleChoice" in json.loads(line)["heads"]
