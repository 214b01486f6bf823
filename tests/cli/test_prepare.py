"""`bert-jax prepare` on the command line: whole, part by part, and what it says of mistakes."""

import json

import pytest
from small_stores import random_texts, small_parts, write_corpus

from bert_jax.cli.main import main
from bert_jax.data.preparation.manifest import Manifest
from bert_jax.text.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    small_parts(monkeypatch)
    write_corpus(tmp_path / "corpus")
    Tokenizer.train(random_texts(31), 61).save(tmp_path / "tokenizer")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FLAGS = ["--held-out", "0.2", "--part-size", "1", "--workers", "1", "--drop-duplicates"]


def test_a_store_is_prepared_part_by_part_as_at_once(folder, capsys):
    prepare = ["prepare", "--corpus", "corpus/a.txt", "corpus/c.jsonl", *FLAGS, "--vocab-size", "97"]
    assert main([*prepare, "--output", "whole"]) == 0
    whole = capsys.readouterr().out
    assert "corpus/c.jsonl: 30 documents" in whole
    assert "skipped 1 of 31 documents: duplicates" in whole
    assert main([*prepare, "--output", "parts", "--part", "1"]) == 0
    assert "part 1 is done (survey_part)" in capsys.readouterr().out
    assert main(["prepare", "--output", "parts", "--workers", "1"]) == 0
    assert capsys.readouterr().out.replace("parts:", "whole:") == whole
    assert main(["prepare", "--output", "parts", "--part", "1"]) == 0
    assert "part 1 is done (prepare_part)" in capsys.readouterr().out
    contents = [json.loads((folder / name / "store.json").read_text()) for name in ("whole", "parts")]
    assert contents[0] == contents[1]
    assert main(["inspect", "whole"]) == 1
    assert "whole is a prepared corpus and not a model; `bert-jax doctor` describes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "store is not a store that was begun: name its text with --corpus"),
        (["--corpus", "absent.txt"], "no such file: absent.txt"),
        (["--corpus", "corpus/a.txt", "--held-out", "2"], "--held-out must be between 0 and 1, got 2.0"),
        (["--corpus", "corpus/a.txt", "--tokenizer-kind", "bpe"], "train it first, as --tokenizer"),
        (["--corpus", "corpus/a.txt", "--tokenizer", "absent"], "absent"),
        (["--corpus", "corpus/a.txt", "--tokenizer", "tokenizer", "--vocab-size", "99"], "combined with --tokenizer"),
        (["--corpus", "corpus/a.txt", "--vocab-size", "5"], "--vocab-size 5 leaves no room beside the special tokens"),
        (["--corpus", "corpus/a.txt", "--min-frequency", "-1"], "--min-frequency must be at least 0, got -1"),
        (["--corpus", "corpus/a.txt", "--seed", str(1 << 63)], "--seed must fit in 64 bits, got 9223372036854775808"),
        (["--corpus", "corpus/a.txt", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["--corpus", "corpus/a.txt", "--part", "99"], "--part must be between 0 and 0, got 99"),
        (["--corpus", "corpus/a.txt", "--text-column", "x", "--part", "-1"], "--part must be between 0 and 0, got -1"),
        (["--corpus", "corpus/a.txt", "corpus/c.jsonl", "--text-column", "body"], "part 0: "),
    ],
)
def test_mistakes_are_one_line(folder, capsys, flags, message):
    assert main(["prepare", "--output", "store", "--workers", "1", *flags]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("bert-jax: ")
    assert "\n" not in error


def test_settings_of_a_store_are_flags_in_messages(folder, capsys):
    main(["prepare", "--output", "store", "--corpus", "corpus/a.txt", "--tokenizer", "tokenizer", *FLAGS])
    assert len(Manifest.load(folder / "store").parts) > 1
    assert main(["prepare", "--output", "store", "--language", "de"]) == 1
    assert "store was begun with --language en, not de: choose another --output" in capsys.readouterr().err
