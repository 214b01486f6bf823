"""CoNLL files: comments, numbered words, separators; every line is a word or counted."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.tagged import read_tagged

CONTRACTIONS = "lines of contractions or of words that are not in the text"


def read(path, **options):
    """The sentences as (words, tags), and how many lines were skipped by reason."""
    report = ReadReport(path)
    examples, _ = read_tagged(path, report=report, **options)
    assert report.unit == "lines"
    assert report.used == sum(len(example.words) for example in examples)
    skipped = {reason: tally.count for reason, tally in report.skipped.items()}
    return [(" ".join(example.words), " ".join(example.tags or ())) for example in examples], skipped


@pytest.mark.parametrize(
    ("content", "sentences", "comments"),
    [
        # Metadata with the number of columns of the file, and with another number.
        ("# id 17 domain=en\nJan _ _ B-PER\nran _ _ O\n", [("Jan ran", "B-PER O")], 1),
        ("# id 17 d domain=en\nJan _ _ B-PER\n\n# id 18\nAda _ _ B-PER\n", [("Jan", "B-PER"), ("Ada", "B-PER")], 2),
        ("# id\tdomain=en\n# more\nJan\tB-PER\n", [("Jan", "B-PER")], 2),
        ("#begin document (a); part 000\nJan NNP B-PER\n\n#end document\n", [("Jan", "B-PER")], 2),
        # The number of columns of the file, within a sentence.
        ("Jan _ _ B-PER\n# sent_id = 7\nran _ _ O\n", [("Jan ran", "B-PER O")], 1),
        ("Jan\tB-PER\n# newpar id = O\nran\tO\n", [("Jan ran", "B-PER O")], 1),
        ("Jan O\n# note: this is new\nran O\n", [("Jan ran", "O O")], 1),
        # Words that begin with #.
        ("# O\n1 O\n\nwe O\nare O\n# O\n1 O\n", [("# 1", "O O"), ("we are # 1", "O O O O")], 0),
        ("#\tO\n#Berlin\tB-loc\n", [("# #Berlin", "O B-loc")], 0),
        ("#Berlin B-tag\n#now B-tag\n", [("#Berlin #now", "B-tag B-tag")], 0),
        ("rain NN\n\n#Berlin NNP\n\nin IN\n#Berlin NNP\n", [("rain", "NN"), ("in #Berlin", "IN NNP")], 1),
        ("#Berlin\n#\nrain\n# text = it is\n", [("#Berlin # rain", "")], 1),
    ],
)
def test_comments_are_skipped_and_counted_and_words_stay(write, content, sentences, comments):
    assert read(write("a.conll", content)) == (sentences, {"comments": comments} if comments else {})


def test_a_hash_word_without_its_tag_is_an_error(write):
    for line in ("#Berlin", "#"):
        with pytest.raises(ValueError, match=rf"a\.conll:2: '{line}' is not a word and its tag"):
            read(write("a.conll", f"in O\n{line}\nnow O\n"))


def test_words_of_conllu_are_its_syntactic_words(write):
    lines = [
        "# newdoc id = a",
        "# text = Vámonos al mar",
        "1-2\tVámonos" + "\t_" * 8,
        "1\tVamos\tir\tVERB" + "\t_" * 6,
        "2\tnos\tnosotros\tPRON" + "\t_" * 6,
        "2.1\tir\tir\tVERB" + "\t_" * 6,
        "",
        "# text = #1",
        "1\t#1\t#1\tX" + "\t_" * 6,
    ]
    path = write("a.conllu", "\n".join(lines) + "\n")
    assert read(path) == ([("Vamos nos", "VERB PRON"), ("#1", "X")], {"comments": 3, CONTRACTIONS: 2})
    assert read_tagged(path)[1][:2] == ("2", "4")
    assert read(path, tag_column="3")[0][0] == ("Vamos nos", "ir nosotros")


def test_numbers_of_words_are_not_words(write):
    path = write("a.tsv", "# source\n1\tJan\tB-PER\tO\n2\tran\tO\tO\n\n1\tAda\tB-PER\tO\n")
    assert read(path, tag_column="3") == ([("Jan ran", "B-PER O"), ("Ada", "B-PER")], {"comments": 1})
    # Numbers that do not count the words are words.
    assert read(write("b.tsv", "1\tCD\tO\n\n3\tCD\tO\n"))[0] == [("1", "O"), ("3", "O")]
    assert read(write("c.tsv", "1\tO\n2\tO\n"))[0] == [("1 2", "O O")]


@pytest.mark.parametrize(
    ("content", "words", "tags"),
    [
        ("Jan O\nran O\t\nhome O \t \r\n", ["Jan", "ran", "home"], "O O O"),  # blanks at the end of later lines
        ("Jan O\t\nran O\n", ["Jan", "ran"], "O O"),  # of the first one
        ("Jan\tO \nran \tO\n", ["Jan", "ran "], "O O"),
        ("Jan O\nran\tO\n  home  \t O\n", ["Jan", "ran", "home"], "O O O"),
        ("10\u00a0000 O\nran O\n", ["10\u00a0000", "ran"], "O O"),  # a no-break space
        ("山\u3000田\tB-PER\n\u3000\tO\n", ["山\u3000田", "\u3000"], "B-PER O"),  # an ideographic space
        ("a\u2028b O\nc\x0bd O\ne\x85f O\n", ["a\u2028b", "c\x0bd", "e\x85f"], "O O O"),  # breaks of other programs
        ("a\u200b O\nb O\u2009\n", ["a\u200b", "b"], "O O"),
    ],
)
def test_only_ascii_blanks_separate(write, content, words, tags):
    examples, _ = read_tagged(write("a.conll", content))
    assert [list(example.words) for example in examples] == [words]
    assert " ".join(examples[0].tags or ()) == tags


LINES = st.sampled_from(
    ["", " ", "a O", "b\tB-x", "# O", "#", "#x", "# k = v", "# a b c", "-DOCSTART- O", "1 a O", "2 b O", "1-2 ab O",
     "\u00a0", "\u3000 O", "a", "a O \t", "\ufeff O", "\x00 O", "O O O O", "_"]
)  # fmt: skip


@given(st.lists(LINES | st.text(max_size=9), max_size=9), st.sampled_from(["\n", "\r\n"]))
@example(["a", "", "# b c"], "\n")
def test_any_file_is_read_whole_or_refused_in_one_line(tmp_path_factory, lines, newline):
    path = tmp_path_factory.getbasetemp() / "fuzzed.conll"
    path.write_bytes(newline.join(lines).encode("utf-8", "surrogatepass"))
    message = None
    try:
        sentences, _ = read(str(path))
        assert sentences
    except ValueError as error:
        message = str(error)
    assert message is None or (str(path) in message and "\n" not in message)
