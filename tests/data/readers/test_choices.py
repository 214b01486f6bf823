"""Texts with continuations are read from the tables of SWAG and similar ones."""

import json

import datasets
import pytest

from bert_jax.data.readers.choices import ChoiceColumns, read_choices
from bert_jax.data.readers.examples import ChoiceExample
from bert_jax.data.readers.report import ReadReport

SWAG = """,video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label
0,anetv_1,7,"He waits, ""still"". A line",He waits. ,A line,gold,forms.,"ends, soon.",sings.,falls.,3
1,lsmdc_2,8,She runs. She,She runs.,She,gen,hides.,jumps.,eats.,sits.,
"""


def read(source: str, **options) -> list[ChoiceExample]:
    return read_choices(source, **options)[0]


def columns_of(source: str, **options) -> ChoiceColumns:
    return read_choices(source, **options)[1]


def test_the_tables_of_swag_are_read(write):
    path = write("train.csv", SWAG)
    endings = ("ending0", "ending1", "ending2", "ending3")
    assert columns_of(path) == ChoiceColumns("sent1", "sent2", endings, "label")
    assert read(path) == [
        ChoiceExample(
            "He waits. ",
            ("A line forms.", "A line ends, soon.", "A line sings.", "A line falls."),
            3,
            f"{path}:2",
        ),
        ChoiceExample("She runs.", ("She hides.", "She jumps.", "She eats.", "She sits."), None, f"{path}:3"),
    ]
    [first, _] = read(path, text_column="startphrase")
    assert (first.text, first.choices[0]) == ('He waits, "still". A line', "forms.")


def test_named_columns_are_preferred(write):
    path = write("a.csv", "what,how,a,b,c,which\nthe owl,it,hooted,flew,sat,1\n")
    named = {"text_column": "what", "lead_column": "how", "choice_columns": ("c", "a"), "label_column": "which"}
    assert columns_of(path, **named) == ChoiceColumns("what", "how", ("c", "a"), "which")
    assert read(path, **named) == [ChoiceExample("the owl", ("it sat", "it hooted"), 1, f"{path}:2")]
    for changed in ({"choice_columns": ("c", "absent")}, {"lead_column": "absent"}):
        with pytest.raises(ValueError, match="no column 'absent' among what, how, a, b, c, which"):
            read(path, **{**named, **changed})


def test_columns_are_found_by_common_names(write, monkeypatch):
    rows = [{"startphrase": "a", "ending1": "c", "ending0": "b", "gold": "1"}]
    path = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    assert columns_of(path) == ChoiceColumns("startphrase", None, ("ending0", "ending1"), None)
    assert read(path) == [ChoiceExample("a", ("b", "c"), None, f"{path}:1")]
    assert read(path, label_column="gold")[0].label == 1
    path = write("letters.jsonl", json.dumps({"ctx": "a", "endings": ["b", "c"], "label": "B"}))
    assert read(path)[0].label == 1
    assert read(path, guess_label=False)[0].label is None
    features = datasets.Features(
        {
            "ctx": datasets.Value("string"),
            "endings": datasets.List(datasets.Value("string")),
            "label": datasets.ClassLabel(names=["0", "1", "2"]),
        }
    )
    table = {"ctx": ["a"], "endings": [["b", "c", "d"]], "label": [2]}
    hub = datasets.Dataset.from_dict(table, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: hub)
    assert read("some-one/choices") == [ChoiceExample("a", ("b", "c", "d"), 2, "the dataset:1")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"ctx": "a", "endings": ["b", "c"], "label": 2},
            r"a\.jsonl:2: 'label' must be a number from 0 to 1 or a letter from A to B, got '2'$",
        ),
        (
            {"ctx": "a", "endings": ["b", "c"], "label": -1},
            r"a\.jsonl:2: 'label' must be a number from 0 to 1 or a letter from A to B, got '-1'$",
        ),
        (
            {"ctx": "a", "endings": ["b", "c"], "label": "b"},
            r"a\.jsonl:2: 'label' must be a number from 0 to 1 or a letter from A to B, got 'b'$",
        ),
        (
            {"ctx": "a", "endings": ["b", "c"], "label": "C"},
            r"a\.jsonl:2: 'label' must be a number from 0 to 1 or a letter from A to B, got 'C'$",
        ),
        ({"ctx": "a", "endings": ["b", "c", "d"], "label": 2}, r"a\.jsonl:2: 3 choices, .*a\.jsonl:1 has 2"),
        (
            {"ctx": "a", "endings": ["b"], "label": 0},
            r"a\.jsonl:2: 'endings' must hold at least two texts .*, got \['b'\]",
        ),
        ({"ctx": "a", "endings": ["b", 1], "label": 0}, r"a\.jsonl:2: 'endings' must hold at least two texts"),
        ({"ctx": None, "endings": ["b", "c"], "label": 0}, r"a\.jsonl:2: no text in 'ctx'"),
        ({"ctx": "a", "endings": ["b", "c"]}, r"a\.jsonl:2: no column 'label' among ctx, endings"),
    ],
)
def test_an_error_names_its_line(write, row, message):
    good = {"ctx": "a", "endings": ["b", "c"], "label": 1}
    with pytest.raises(ValueError, match=message):
        read(write("a.jsonl", f"{json.dumps(good)}\n{json.dumps(row)}\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "sent1,label\na,1\n",
            r"a\.csv: which columns hold the continuations \(ending0, .*\)\? There are sent1, label",
        ),
        ("ending0,ending1\na,b\n", r"a\.csv: which columns hold the text\? There are ending0, ending1"),
        ("sent1,ending0,ending1\n", r"a\.csv: no rows"),
    ],
)
def test_a_table_without_choices_is_an_error(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write("a.csv", content))


def test_columns_that_a_model_was_trained_on_are_preferred_to_common_names(write):
    path = write("a.csv", "question,text,ending0,ending1,x,y,label,right\nq,t,a,b,c,d,0,1\n")
    trained_on = {"text": "text", "choice 1": "x", "choice 2": "y", "label": "right"}
    report = ReadReport(path)
    [example], columns = read_choices(path, trained_on=trained_on, report=report)
    assert (example.text, example.choices, example.label) == ("t", ("c", "d"), 1)
    assert columns.by_role == report.columns == trained_on
    assert read_choices(path, trained_on=trained_on | {"choice 2": "absent"})[0][0].choices == ("a", "b")
    assert read_choices(path, trained_on=trained_on, text_column="question")[0][0].text == "q"
    assert read_choices(path, trained_on=trained_on, guess_label=False)[0][0].label is None


def test_a_list_of_choices_in_a_csv_cell_is_read(write):
    path = write(
        "a.csv", 'question,choices,label\nq,"[\'a\', \'b, c\']",1.0\nr,"[""d"", ""e""]",\ns,"[\'f\' \'g\']",nan\n'
    )
    examples, _ = read_choices(path)
    assert [example.choices for example in examples] == [("a", "b, c"), ("d", "e"), ("f", "g")]
    assert [example.label for example in examples] == [1, None, None]
