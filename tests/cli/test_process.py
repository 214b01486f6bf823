"""How the scripts end: in one line, with the command that goes on where there is something to go on with."""

import sys

import pytest

from bert_jax.cli import process as exits


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "RUN"], "x.py: interrupted; to go on: python x.py --output RUN --resume\n"),
        (["--output", "RUN", "--sweep"], "x.py: interrupted\n"),
    ],
)
def test_a_way_to_go_on_is_told_where_there_is_one(monkeypatch, capsys, words, said):
    monkeypatch.setattr(sys, "argv", ["x.py", *words])
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", *words])
    with pytest.raises(SystemExit) as caught:
        exits.run(interrupted, "x.py", anew=("--sweep",))
    assert caught.value.code == 130
    assert capsys.readouterr().err == said
