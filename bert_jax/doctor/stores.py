"""Examines a store of `bert-jax prepare`: every file of its tokens is read, and compared with its hash."""

from collections.abc import Iterator
from pathlib import Path

from bert_jax.data.preparation.manifest import SIDES, STORE, Manifest, part_name
from bert_jax.data.preparation.sealed import damaged_files, digest, read_content
from bert_jax.data.preparation.store import PreparedCorpus, describe_store
from bert_jax.doctor.findings import Finding, fact, problem, warning
from bert_jax.messages import counted


def examine_store(source: str | Path) -> Iterator[Finding]:
    """Yields what was found in the folder of a store: damaged files, or else its size and its sources."""
    store = Path(source).expanduser()
    try:
        manifest = Manifest.load(store)
    except ValueError as error:
        yield problem(str(error))
        return
    inputs = counted(len(manifest.inputs), "input")
    yield fact(f"{store} is a prepared corpus: {inputs} in {counted(len(manifest.parts), 'part')}")
    is_complete = (store / STORE).is_file()
    folders = [store / name for name in (*map(part_name, range(len(manifest.parts))), *SIDES)]
    is_damaged = False
    for folder in folders:
        if (is_complete or folder.exists()) and (files := damaged_files(folder)):
            is_damaged = True
            yield problem(f"{folder}: missing, or not the bytes that were prepared: {', '.join(files)}")
    try:
        prepared = PreparedCorpus.open(store)
    except ValueError as error:
        yield problem(str(error))
        return
    if is_damaged or not _fits(prepared, folders):
        yield problem(f"{store} is damaged; run `bert-jax prepare --output {store}`")
        return
    yield fact(
        f"{prepared.train.num_tokens:,} tokens to train on, {prepared.held_out.num_tokens:,} held out, "
        f"vocabulary of {prepared.tokenizer.vocab_size:,}"
    )
    for line in (line for source in prepared.reports() for line in source.lines()):
        text = line.removeprefix("warning: ")
        yield fact(text) if text == line else warning(text)


def _fits(prepared: PreparedCorpus, folders: list[Path]) -> bool:
    """Returns whether store.json is what its folders, which are whole, give."""
    contents = [read_content(folder) or {} for folder in folders]
    sides = {str(side): content for side, content in zip(SIDES, contents[-2:], strict=True)}
    return digest(describe_store(prepared.folder, contents[:-2], sides)) == digest(prepared.content)
