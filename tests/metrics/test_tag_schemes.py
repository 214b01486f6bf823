"""Entities and their scores do not depend on how tags are spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.metrics.entities import count_entities, find_entities, total
from bert_jax.metrics.tag_schemes import Tag, read_tag_scheme

# The letters of the first, an inner, the last and the only word of an entity.
LETTERS = {"IOB2": "BIIB", "IOE2": "IIEE", "BIOES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
NAMES = {"IOB2": "IOB", "IOE2": "IOE"}
SPELLINGS = {
    "B-PER": lambda letter, kind: f"{letter}-{kind}",
    "B_PER": lambda letter, kind: f"{letter}_{kind}",
    "b-PER": lambda letter, kind: f"{letter.lower()}-{kind}",
    "PER-B": lambda letter, kind: f"{kind}-{letter}",
    "PER_b": lambda letter, kind: f"{kind}_{letter.lower()}",
}
KINDS = st.sampled_from(["PER", "LOC", "WORK_OF-ART"])
SENTENCES = st.lists(st.tuples(KINDS, st.integers(1, 4), st.integers(0, 2)), max_size=5)


def entities_of(sentence):
    """The entities (kind, start, stop) of (kind, length, words outside after it), and the number of words."""
    found = []
    start = 0
    for kind, length, outside in sentence:
        found.append((kind, start, start + length))
        start += length + outside
    return found, start


def write_tags(sentence, letters, spell=SPELLINGS["B-PER"], outside="O"):
    entities, words = entities_of(sentence)
    tags = [outside] * words
    first, inside, last, only = letters
    for kind, start, stop in entities:
        chosen = [only] if stop == start + 1 else [first, *inside * (stop - start - 2), last]
        tags[start:stop] = [spell(letter, kind) for letter in chosen]
    return tags


COMPLETE = [("PER", 3, 1), ("PER", 1, 0)]  # has every letter of every scheme


@given(st.lists(SENTENCES, max_size=3), st.sampled_from(list(LETTERS)), st.sampled_from(list(SPELLINGS)))
def test_entities_are_the_same_in_every_scheme_and_spelling(sentences, scheme, spelling):
    dataset = [COMPLETE, *sentences]
    tags = [write_tags(sentence, LETTERS[scheme], SPELLINGS[spelling]) for sentence in dataset]
    found = read_tag_scheme(tag for sentence in tags for tag in sentence)
    assert found.name == NAMES.get(scheme, scheme)
    for sentence, names in zip(dataset, tags, strict=True):
        assert find_entities(names, found) == entities_of(sentence)[0]


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=4), st.sampled_from(list(LETTERS)))
def test_scores_are_the_same_in_every_scheme(pairs, scheme):
    def score(letters):
        predicted = [COMPLETE, *(pair[0] for pair in pairs)]
        gold = [COMPLETE, *(pair[1] for pair in pairs)]
        sides = [[write_tags(sentence, letters) for sentence in side] for side in (predicted, gold)]
        longest = [max(map(len, both)) for both in zip(*sides, strict=True)]
        padded = [
            [tags + ["O"] * (length - len(tags)) for tags, length in zip(side, longest, strict=True)] for side in sides
        ]
        return count_entities(*padded)

    assert score(LETTERS[scheme]) == score(LETTERS["IOB2"])


def test_entities_of_bilou_have_the_kinds_of_their_tags():
    gold = ["B-per", "I-per", "L-per", "O", "U-loc", "U-loc", "B-per", "L-per"]
    predicted = ["B-per", "I-per", "L-per", "O", "U-loc", "O", "U-per", "U-per"]
    assert find_entities(gold) == [("per", 0, 3), ("loc", 4, 5), ("loc", 5, 6), ("per", 6, 8)]
    assert total(count_entities([predicted], [gold])) == (2, 4, 4)


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("I-per I-per B-per O", [("per", 0, 2), ("per", 2, 3)]),  # IOB1
        ("I-per E-per I-per O", [("per", 0, 2), ("per", 2, 3)]),  # IOE1
        ("I-per I-per I-loc O", [("per", 0, 2), ("loc", 2, 3)]),  # IO
        ("B_per M_per E_per EE_O_per BB_O_loc W_loc", [("per", 0, 3), ("loc", 5, 6)]),  # BMEWO+
        ("S-per <pad> B-per E-per [CLS] X", [("per", 0, 1), ("per", 2, 4)]),  # a tag set of a model
        ("B-PER i-per b-Per 0", [("PER", 0, 2), ("PER", 2, 3)]),
        ("b i o b", [("_", 0, 2), ("_", 3, 4)]),
        ("B M E S", [("_", 0, 3), ("_", 3, 4)]),  # word segmentation
        ("B:per I:per O", [("per", 0, 2)]),
        ("per per o loc", [("per", 0, 2), ("loc", 3, 4)]),
    ],
)
def test_tags_of_common_schemes_are_understood(tags, entities):
    assert find_entities(tags.split()) == entities


@pytest.mark.parametrize(
    "tags", ["e-mail phone", "hepatitis-B vitamin-B", "B BN A I", "M W", "NN -LRB- X", "LABEL_0 LABEL_1", "U-boat ship"]
)
def test_names_that_only_look_like_tags_of_a_scheme_are_kinds(tags):
    scheme = read_tag_scheme(["O", *tags.split()])
    assert scheme.name is None
    assert scheme.kinds == sorted(tags.split())
    assert scheme.outside == ["O"]


def test_a_small_o_among_letters_is_a_kind():
    assert read_tag_scheme(["n", "o", "v"]).kinds == ["n", "o", "v"]
    assert read_tag_scheme(["o", "per"]).kinds == ["per"]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("O B-per I-per X-loc", "tag 'X-loc' fits no scheme together with 'B-per'"),
        ("O B-per I-per loc", "tag 'loc' fits no scheme together with 'B-per'"),
        ("O per-B per-I loc", "tag 'loc' fits no scheme together with 'per-B'"),
        ("O b-per i-per B", "tag 'B' fits no scheme together with 'b-per'"),
        ("O B-per E-per L-loc", "tags 'E-per' and 'L-loc' are of two schemes: E and L mean the same"),
        ("O B-per U-per S-loc", "tags 'S-loc' and 'U-per' are of two schemes: S and U mean the same"),
    ],
)
def test_tags_that_fit_no_scheme_are_refused_by_name(tags, message):
    with pytest.raises(ValueError, match=message):
        read_tag_scheme(tags.split())


def test_a_tag_of_another_set_is_refused_by_name():
    with pytest.raises(ValueError, match="tag 'B-loc' is not one of B-per, O"):
        find_entities(["B-loc"], read_tag_scheme(["O", "B-per"]))


def test_the_scheme_is_reported_in_one_line():
    assert str(read_tag_scheme(["o", "B-per", "L-per", "U-loc", "<pad>"])) == (
        "tags in the BILOU scheme; entity kinds: loc, per; read as O: <pad>, o"
    )
    assert str(read_tag_scheme(["NN", "VB"])).startswith("tags without B-, I- and the like; neighbours")
    many = str(read_tag_scheme(f"B-{number}" for number in range(30)))
    assert many.endswith(", ...")
    assert read_tag_scheme(["b_per", "O"])["b_per"] == Tag("B", "per")
