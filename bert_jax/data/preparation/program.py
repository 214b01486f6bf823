"""From a corpus to a store, with any engine."""

from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.manifest import begin_store
from bert_jax.data.preparation.parts import prepare_part
from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.preparation.stages import Engine, Work, combine
from bert_jax.data.preparation.store import PreparedCorpus, finish
from bert_jax.data.preparation.survey import survey_part
from bert_jax.messages import counted


def prepare(
    settings: Preparation, engine: Engine | None = None, *, say: Callable[[str], object] = print
) -> PreparedCorpus:
    """Tokenizes a corpus in parts, or continues where an earlier call has ended; whole parts are not done again.

    Args:
        engine: runs the parts; default: processes of this machine.
        say: called with lines about the progress and, at the end, each source.

    Raises:
        ValueError, OSError, ImportError: settings or inputs that cannot be used, with the part and the file.
        RuntimeError: worker processes have died again and again.
    """
    engine = engine or local()
    manifest = begin_store(settings)
    store = Path(settings.output)
    parts = counted(len(manifest.parts), "part")
    say(f"{store}: {counted(len(manifest.inputs), 'input')} in {parts}")
    if manifest.has_survey:
        surveys = _run_all(engine, survey_part, store, len(manifest.parts), "surveying")
        say("combining the words and hashes of all parts")
        combine(store, surveys)
    made = _run_all(engine, prepare_part, store, len(manifest.parts), "tokenizing")
    for report in finish(store, made):
        for line in report.lines():
            say(line)
    prepared = PreparedCorpus.open(store)
    say(
        f"{store}: {prepared.train.num_tokens:,} tokens to train on, {prepared.held_out.num_tokens:,} held out, "
        f"vocabulary of {prepared.tokenizer.vocab_size:,}"
    )
    return prepared


def _run_all(engine: Engine, work: Work, store: Path, number: int, what: str) -> list[Content]:
    """Returns the results for all parts, in their order."""
    results = tqdm(engine(work, store, range(number)), what, number, unit=" parts", disable=None)
    return sorted(results, key=lambda content: content["number"])
