"""`bert-jax` sits in a pipe: lines in, lines out, in order and as they come; errors in one line."""

import json
import os
import subprocess
import sys
import warnings

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
    """A model for each command, by its name."""
    found = {}
    for name, (head, changes) in MODELS.items():
        found[name] = str(tmp_path_factory.mktemp(name))
        small.bert(head, **changes).save_pretrained(found[name])
    return found


@pytest.fixture(scope="module", autouse=True)
def load_once():
    """Keeps what was loaded, and so what was compiled, from one call of the command to the next."""
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
    """Runs the command in this process: its lines on stdout."""

    def run(*arguments, stdin=""):
        code, lines, error = ended(*arguments, stdin=stdin.encode())
        assert (code, error) == (0, "")
        return lines

    return run


@pytest.fixture
def ended(capsys, monkeypatch, tmp_path):
    """Runs the command in this process: its exit code, its lines on stdout, and what is on stderr."""

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
    """Runs the command in this process: its exit code, and its one line on stderr."""

    def refusal(*arguments):
        code = main(arguments)
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        return code, line

    return refusal


@pytest.mark.parametrize("name", CLASSES)
def test_json_lines_are_the_answers_of_the_pipeline_in_order(name, folders, run):
    texts = [f"{line} [MASK]" for line in LINES] if name == "fill-mask" else LINES
    asked = [*texts]
    if name == "answer":
        texts = [f"where is the owl ?\t{line}" for line in LINES if line]
        asked = [{"question": "where is the owl ?", "context": line} for line in LINES if line]
    want = CLASSES[name].load(folders[name], max_length=None, progress=False, **EXTRAS.get(name, {}))(asked)
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


def test_lines_have_fields_with_tabs_between(folders, run):
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


def test_pairs_are_two_columns(folders, run):
    pair = {"text": "an owl", "text_pair": small.SHORT}
    got = run("classify", folders["classify"], "--pairs", "--json", f"an owl\t{small.SHORT}")
    assert [json.loads(line) for line in got] == [
        pipelines.TextClassifier.load(folders["classify"], max_length=None, progress=False)(pair)
    ]


def test_a_question_is_asked_of_a_whole_file(folders, run, tmp_path):
    context = "\n".join(small.LINES)
    (tmp_path / "article").write_text(context)
    ask = "answer", folders["answer"], "where is the owl ?"
    (want,) = run(*ask, context)
    assert run(*ask, "--file", str(tmp_path / "article")) == [want]
    assert run(*ask, stdin=context) == [want]
    assert run(*ask, context, "--null-answer", "--null-threshold", "-99")[0].startswith("\t")


BAD = [
    ("fill-mask", (), b"an [MASK]", b"an owl", "wanted a [MASK] in the text: 'an owl'"),
    ("classify", (), b"an owl", b"caf\xe9", "not UTF-8: byte 0xe9 after 3 bytes of the line"),
    ("classify", ("--pairs",), b"an\towl", b"an owl", "wanted a line of text TAB text_pair, got 'an owl'"),
    ("answer", (), b"who ?\tan owl", b"who ?\t ", "the context must be a text that is not empty, got ' '"),
    ("answer", (), b"who ?\tan owl", b"owl " * 40 + b"\towl", "a question of 40 tokens leaves too little of 23 tokens"),
    ("answer", (), b"who ?\tan owl", b"who ?\t\x00", "the context holds no token that the vocabulary knows"),
]


@pytest.mark.parametrize(("name", "flags", "good", "bad", "message"), BAD)
def test_a_line_that_cannot_be_answered_is_named_after_those_before_it(name, flags, good, bad, message, folders, ended):
    code, lines, error = ended(name, folders[name], *flags, stdin=b"\n".join([good, good, bad, good]))
    assert (code, len(lines)) == (1, 2)
    assert error.startswith(f"bert-jax: standard input:3: {message}")
    assert len(error.splitlines()) == 1


def test_lines_are_counted_over_portions_of_a_file(folders, ended, monkeypatch, tmp_path):
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


def test_an_argument_that_is_not_utf_8_is_refused(folders, refusal):
    assert refusal("tag", folders["tag"], "caf\udce9") == (1, "bert-jax: not UTF-8: 'caf\\udce9'")


def test_an_option_is_refused_without_a_line_to_blame(folders, ended):
    for flags, message in (("--top=0", "top must be at least 1, got 0"), ("--targets=", "nothing for the target ''")):
        code, lines, error = ended("fill-mask", folders["fill-mask"], flags, stdin=b"an [MASK]")
        assert (code, lines) == (1, [])
        assert message in error
        assert "standard input" not in error


# Lines as they come


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="aé\u2028 \t", max_size=9), max_size=9), st.booleans())
def test_only_line_feeds_end_a_line(lines, closed):
    text = "\n".join(lines) + ("\n" if closed and lines else "")
    receive, send = os.pipe()
    os.write(send, text.encode())
    os.close(send)
    found = [decoded(line) for portion in portions(receive) for line in portion]
    os.close(receive)
    # A last line that is empty and not ended is no line.
    assert found == (lines if closed or not lines or lines[-1] else lines[:-1])


def test_a_slow_pipe_is_answered_line_by_line():
    receive, send = os.pipe()
    os.set_blocking(receive, False)  # who waits for more than there is fails, and does not hang
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


def test_fields_stay_in_their_line():
    assert fields("a\tb\nc", 1, 0.5) == "a b c\t1\t0.500000"
    assert columns("a\tb\tc", ("x", "y")) == {"x": "a", "y": "b\tc"}
    with pytest.raises(ValueError, match="wanted a line of x TAB y, got 'a'"):
        columns("a", ("x", "y"))


# As a command


def test_a_reader_who_has_seen_enough_ends_it_in_silence(folders, tmp_path):
    (tmp_path / "texts").write_text("an owl\n" * 20_000)
    command = [sys.executable, "-m", "bert_jax.cli.main", "embed", folders["embed"], "--file", str(tmp_path / "texts")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.readline().split("\t")) == 12
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_nobody_need_read_the_help_to_its_end():
    command = [sys.executable, "-m", "bert_jax.cli.main", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_help_needs_no_jax():
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


def test_what_goes_wrong_is_one_line_and_exit_code_1(folders, refusal, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert refusal("embed", nowhere, "owl") == (
        1, f"bert-jax: {nowhere}: no config.json here; expected the folder of a run or of a model"
    )  # fmt: skip
    assert refusal("classify", folders["embed"], "owl")[1].startswith("bert-jax: TextClassifier needs a BertForSeq")
    assert refusal("fill-mask", folders["fill-mask"], "owl")[1] == "bert-jax: wanted a [MASK] in the text: 'owl'"
    assert refusal("embed", folders["embed"], "--file", nowhere)[0] == 1
    assert refusal("embed", folders["embed"], "owl", "--file", nowhere)[1].endswith("or in --file, not both")
    assert refusal("answer", folders["answer"], "a", "b", "c")[1].endswith("wanted a question, and a context or --file")


def test_a_closed_end_is_one_line_and_exit_code_1(refusal, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", None)
        code, line = refusal("classify", "anything")
        assert (code, line.split(":")[1]) == (1, " standard input is closed")
        patch.setattr(sys, "stdout", None)
        assert main(["inspect", "anything"]) == 1
    assert "standard output is closed" in capsys.readouterr().err


def test_what_the_system_says_of_a_file_begins_with_its_name(refusal, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert refusal("classify", "anything", "--file", nowhere) == (1, f"bert-jax: {nowhere}: No such file or directory")
    assert refusal("inspect", nowhere)[1].startswith(f"bert-jax: {nowhere}: no config.json here")


def test_a_command_that_is_called_wrongly_has_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["embed", "--no-such-flag"])
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


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


def test_inspect_counts_what_is_there(folders, run):
    (line,) = run("inspect", folders["classify"], "--json")
    found, bert = json.loads(line), bert_jax.load(folders["classify"])
    for part, tree in bert.params.items():
        assert found["parameters"][part] == sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert found["parameters"]["total"] == sum(leaf.size for leaf in jax.tree.leaves(bert.params))
    assert found["model"] == "BertForSequenceClassification"
    assert found["config"]["hidden_size"] == 12
    assert "BertForSequenceClassification" in found["heads"]
    assert "BertForMaskedLM" not in found["heads"]
    assert "BertForMultipleChoice" not in found["heads"], "its classifier has one score, not three"
    text = "\n".join(run("inspect", folders["classify"]))
    assert f"{found['parameters']['total']:,}" in text
    assert "loads as BertModel" in text


def test_inspect_names_multiple_choice_for_a_classifier_of_one_score(run, tmp_path):
    small.bert("BertForMultipleChoice").save_pretrained(tmp_path)
    (line,) = run("inspect", str(tmp_path), "--json")
    assert "BertForMultipleChoice" in json.loads(line)["heads"]
