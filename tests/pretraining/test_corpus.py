"""The text of a run: what is printed while it is read."""

from bert_jax.pretraining import corpus, make_settings


def test_a_line_is_printed_before_each_long_step(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("\n\n".join(f"the owl hooted .\n{number} times ." for number in range(7)))
    printed = []

    def watch(owner, name):
        function = getattr(owner, name)

        def watched(*arguments, **options):
            printed.append(capsys.readouterr().out)
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    watch(corpus, "read_corpus")
    watch(corpus.Tokenizer, "train")
    watch(corpus, "tokenize_corpus")
    settings = make_settings("tiny", corpus=(str(tmp_path / "a.txt"),), vocab_size=37, cache_dir=str(tmp_path / "c"))
    read = corpus.Corpus.read(settings)
    assert printed == [
        f"reading {tmp_path / 'a.txt'}\n",
        "training a vocabulary of 37 tokens\n",
        "tokenizing 7 documents\n",
        "",  # the held-out documents
    ]
    assert read.train.num_documents + read.held_out.num_documents == 7
