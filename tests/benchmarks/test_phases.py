"""The benchmark of phases: both runs take the same time, and are evaluated on the same rows."""

import phases as benchmark
import pytest
import small_finetuning as small
from small_runs import write_corpus


@pytest.mark.parametrize(("short", "long"), [(0.5, 1.0), (1.0, 1.0), (0.3, 0.31)])
def test_the_phases_take_as_long_as_long_rows_throughout(short, long):
    first, last = benchmark.phased_steps(1_000, short, long)
    assert first * short + last * long == pytest.approx(1_000 * long, abs=long)
    assert first / (first + last) == pytest.approx(0.9, abs=1e-3)


def test_a_small_run_reports_both_sides(tmp_path, monkeypatch, capsys):
    settings_of = benchmark.settings_of

    def small_settings(*arguments, **options):
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 150}
        return settings_of(*arguments, **options).replace(**sizes, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(benchmark, "settings_of", small_settings)
    corpus = str(write_corpus(tmp_path / "corpus.txt"))
    flags = ["--corpus", corpus, "--length", "24", "--rows", "2", "--steps", "4", "--turn", "1", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["phases.py", *flags, "--folder", str(tmp_path / "runs")])
    with small.devices(1):
        benchmark.main()
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    sides = {row[0].removeprefix("| "): row[1:] for row in table}
    assert sides["24 throughout"][0] == "4 on 24"
    assert sides["12, then 24"][0].endswith(" on 24")
    assert float(sides["24 throughout"][-1].strip(" |")) > 0
