"""A report conserves rows: read = used + skipped, and names the first place of each reason."""

from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data.readers.report import ReadReport

REASONS = ("rows without a label", "comment lines")


@given(st.lists(st.sampled_from((*REASONS, None))))
def test_rows_read_are_rows_used_and_rows_skipped(outcomes):
    report = ReadReport("file")
    for line, reason in enumerate(outcomes, 1):
        report.rows += 1
        if reason is not None:
            report.skip(reason, f"file:{line}")
    assert report.used == outcomes.count(None)
    for reason in REASONS:
        if reason in outcomes:
            line = outcomes.index(reason) + 1
            message = f"file: skipped {outcomes.count(reason)} of {len(outcomes)} rows: {reason} (first: file:{line})"
            assert message in report.lines()
            assert report.as_dict()["skipped"][reason] == {"count": outcomes.count(reason), "first": f"file:{line}"}


def test_changed_rows_are_used():
    report = ReadReport("dev.json", unit="questions", rows=5)
    report.change("answers that were moved", "dev.json: question 3")
    assert report.used == 5
    assert report.lines() == ["dev.json: answers that were moved: 1 (first: dev.json: question 3)"]
