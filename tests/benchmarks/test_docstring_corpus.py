"""The corpus of docstrings: a document per module, its paragraphs in order, nothing twice."""

import docstring_corpus
import pytest

from bert_jax.data.readers.corpus import read_corpus


def sentence(topic: str, number: int) -> str:
    return f"Paragraph number {number} is about {topic} and is long enough to be kept."


def module(topic: str) -> str:
    """A module of three long paragraphs: the module's, a method's and, last in the source, a function's."""
    return f'''"""{sentence(topic, 1)}

>>> example() and more words than a short paragraph may have, all of one line
"""

class Widget:
    def method(self):
        """{sentence(topic, 2)}

        Too short.
        """

def function():
    """Paragraph number 3 is about
    -------------
    {topic} and is long enough to be kept.
    """
'''


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "inner" / "tests").mkdir(parents=True)
    (folder / "birds.py").write_text(module("birds"), encoding="utf-8")
    (folder / "copy_of_birds.py").write_text(module("birds"), encoding="utf-8")
    (folder / "inner" / "trains.py").write_text(module("trains"), encoding="utf-8")
    (folder / "inner" / "tests" / "cars.py").write_text(module("cars"), encoding="utf-8")
    (folder / "short.py").write_text('"""Short."""\n', encoding="utf-8")
    return folder


def test_paragraphs_are_in_the_order_of_the_source_on_one_line_each():
    assert docstring_corpus.paragraphs(module("birds")) == [sentence("birds", number) for number in (1, 2, 3)]


def test_the_file_reads_back_as_one_document_per_module_without_copies_and_tests(package, tmp_path, monkeypatch):
    monkeypatch.setattr(docstring_corpus, "SHORTEST_DOCUMENT", 100)
    monkeypatch.syspath_prepend(str(tmp_path))
    output = tmp_path / "corpus.txt"
    monkeypatch.setattr("sys.argv", ["docstring_corpus.py", str(output), "--packages", "package"])
    (package / "__init__.py").write_text("", encoding="utf-8")

    docstring_corpus.main()

    texts = read_corpus(str(output), cache_dir=tmp_path / "cache")["text"]
    assert [text.count("Paragraph") for text in texts] == [3, 3]
    assert ["birds" in text for text in texts] == [True, False]
    assert "trains" in texts[1]
    assert "cars" not in output.read_text(encoding="utf-8")


def test_short_documents_are_left_out(package):
    assert docstring_corpus.documents(package, set()) == []


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["docstring_corpus.py", str(tmp_path / "c.txt"), "--packages", "no_such_package"])

    with pytest.raises(SystemExit):
        docstring_corpus.main()

    assert "no_such_package is not an installed package" in capsys.readouterr().err
    assert not (tmp_path / "c.txt").exists()
