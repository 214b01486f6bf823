"""The wording of counts in messages."""

from bert_jax.messages import counted


def test_a_noun_agrees_with_its_number():
    found = [counted(number, "row") for number in (0, 1, 2, 2000)]
    assert found == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert [counted(number, "class", "classes") for number in (1, 3)] == ["1 class", "3 classes"]
