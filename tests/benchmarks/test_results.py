"""Where results are recorded, and that every benchmark is documented."""

from pathlib import Path

from common import results

BENCHMARKS = Path(results.__file__).parents[1]


def test_a_result_replaces_only_its_own_section_of_the_same_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["benchmarks/some.py", "--rows", "3", "--record"])
    for heading, text, processor in (("A", "one", "X"), ("B", "two", "X"), ("A", "other", "Y"), ("A", "three", "X")):
        monkeypatch.setattr(results, "processor", lambda name=processor: name)
        results.record(heading, text)
    sections = results.RESULTS.read_text().split("\n## ")
    assert [section.splitlines()[0] for section in sections] == ["# Results", "A (X)", "B (X)", "A (Y)"]
    assert "three" in sections[1]
    assert "one" not in sections[1]
    assert "    python benchmarks/some.py --rows 3\n" in sections[2]


def test_recording_keeps_the_summary_and_all_other_sections(tmp_path, monkeypatch):
    before = results.RESULTS.read_text(encoding="utf-8")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(results, "processor", lambda: "no such processor")
    monkeypatch.setattr("sys.argv", ["benchmarks/some.py", "--record"])
    results.RESULTS.write_text(before, encoding="utf-8")
    results.record("Some", "a result")
    after = results.RESULTS.read_text(encoding="utf-8")
    assert after.startswith(before)
    assert after.removeprefix(before).startswith("\n## Some (no such processor)\n")


def test_the_documentation_lists_every_benchmark():
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    scripts = [path.name for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text()]
    assert len(scripts) > 9
    for name in scripts:
        script = "gpu.sh" if name == "gpu.py" else name  # gpu.sh sets the environment for gpu.py
        assert f"benchmarks/{script}" in page, script
