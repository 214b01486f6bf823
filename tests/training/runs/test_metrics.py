"""A damaged line of metrics.jsonl does not stop a run: it is moved away, and the other rows stay."""

import json

import numpy as np
import pytest

from bert_jax.training.runs.metrics import DAMAGED_ROWS, MetricsFile, last_step, read_evaluations, read_metrics

DAMAGED = (b"\0" * 40, b'{"step": 2, "lo', b'{"loss": 1.5}', b'{"step": "2"}', b'{"step": NaN}', b'{"step": true}',
           b"[]", b"\xff\xfe", b"[" * 100_000)  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: repr(line[:16]))
def test_a_damaged_line_is_moved_away_with_a_warning(tmp_path, capsys, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "eval_f1": 0.5}\n' + line + b'\n{"step": 3, "eval_f1": 0.75}\n{"step": 4}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not a row of metrics"):
        read_metrics(path)
    assert last_step(path) == 4
    assert [row["step"] for row in read_evaluations(path, (5,))] == [1, 3]
    file = MetricsFile(path, after_step=3)
    assert f"{path}: warning: 1 line without metrics, the first is line 2; moved to" in capsys.readouterr().out
    assert (tmp_path / DAMAGED_ROWS).read_bytes() == line + b"\n"
    file.write({"step": 4, "loss": 2.0})
    assert [row["step"] for row in read_metrics(path)] == [1, 3, 4]
    file.cut(1)
    assert capsys.readouterr().out == ""


def test_lines_of_several_losses_of_power_are_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for line in DAMAGED[:2]:
        path.write_bytes(b'{"step": 1}\n' + line + b"\n")
        MetricsFile(path, after_step=1)
    assert (tmp_path / DAMAGED_ROWS).read_bytes() == b"\n".join([*DAMAGED[:2], b""])
    assert json.loads(path.read_text()) == {"step": 1}


def test_a_lost_evaluation_of_one_seed_leaves_out_the_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step, "seed": seed, "eval_f1": seed / 10}) for step in (2, 4) for seed in (3, 5)]
    path.write_text("\n".join([*rows[:3], "\0" * len(rows[3]), ""]))
    (row,) = read_evaluations(path, (3, 5))
    assert row["step"] == 2
    np.testing.assert_allclose(row["eval_f1"], [0.3, 0.5])
