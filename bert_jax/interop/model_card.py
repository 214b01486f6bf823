"""The model card of a saved model, README.md: metadata that the Hugging Face hub reads, and a page for people.

What is not known is left out. A model that was read from a folder with a card of somebody else keeps that card.

References: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from bert_jax.config import BertConfig
from bert_jax.files import write_file
from bert_jax.interop.heads import architecture
from bert_jax.interop.run_facts import Origin, RunFacts, read_facts
from bert_jax.messages import counted, first_line
from bert_jax.models import Bert
from bert_jax.text.vocabulary import MASK

CARD = "README.md"
MARK = "<!-- Written by bert_jax; delete this line to keep the page as it is when the model is saved again. -->"
MAX_CARD = 1 << 20  # bytes of a card that is kept
EVALUATED_ON = "held-out part of the data"
SHOWN = (("batch_size", "batches of"), ("learning_rate", "learning rate"))  # settings in the text
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Usage:
    """How a kind of model is used: its pipeline on the hub, the class in `bert_jax.pipelines`, and a call of it."""

    tag: str | None
    pipeline: str
    call: str


USAGES = {
    "BertForPreTraining": Usage("fill-mask", "FillMask", '("this is a {mask} .")'),
    "BertForMaskedLM": Usage("fill-mask", "FillMask", '("this is a {mask} .")'),
    "BertForSequenceClassification": Usage("text-classification", "TextClassifier", '("a text")'),
    "BertForTokenClassification": Usage("token-classification", "TokenClassifier", '("a text")'),
    "BertForQuestionAnswering": Usage(
        "question-answering", "QuestionAnswerer", '({"question": "who?", "context": "a text"})'
    ),
    "BertForMultipleChoice": Usage(
        "multiple-choice", "MultipleChoice", '({"text": "a beginning", "choices": ["an end", "another end"]})'
    ),
    "BertForNextSentencePrediction": Usage(None, "Embedder", '(["a text", "another text"])'),
    "Bert": Usage("feature-extraction", "Embedder", '(["a text", "another text"])'),
}


def write_card(bert: Any, folder: Path, *, name: str, license: str | None = None) -> None:
    """Writes README.md; a page that this function did not write is kept.

    Args:
        bert: a `LoadedBert`.
        name: of the model on the page: that of the folder, or `owner/name` on the hub.
        license: identifier of a licence on the hub, such as apache-2.0.

    Raises:
        ValueError: `license` is no identifier.
    """
    path = folder / CARD
    if not (path.is_file() and MARK not in _read(path)):
        write_file(path, card_text(bert, name, license))


def require_license(license: str | None) -> None:
    """Raises ValueError unless a licence has the form of the hub's identifiers."""
    if license is not None and not _LICENSE.fullmatch(license):
        raise ValueError(f"`license` must be an identifier of the hub, such as apache-2.0 or mit, got {license!r:.60}")


def card_text(bert: Any, name: str, license: str | None = None) -> str:
    """Returns README.md; arguments and errors are those of `write_card`."""
    from huggingface_hub import ModelCard  # takes a while to import

    require_license(license)
    kept = _kept_card(bert)
    if kept is not None:
        if license is None:
            return kept
        card = ModelCard(kept, ignore_metadata_errors=True)
        card.data["license"] = license
        return str(card)
    facts = _facts(bert)
    return f"---\n{_metadata(bert, name, facts, license)}\n---\n{MARK}\n\n" + "\n".join(_page(bert, name, facts))


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_CARD).decode(errors="replace")


def _kept_card(bert: Any) -> str | None:
    """Returns the card in the folder of an unchanged model that is no run's; None if there is none."""
    origin: Origin | None = bert.origin
    if origin is None or origin.hub_name is not None or origin.changed or bert.new_parts or bert.unused_parts:
        return None
    path = origin.folder / CARD
    return _read(path) if path.is_file() and path.stat().st_size < MAX_CARD else None


def _facts(bert: Any) -> RunFacts | None:
    """Returns what is known of the model's run, or None; warns if its files cannot be read."""
    if bert.origin is None:
        return None
    is_run = bert.origin.step is not None  # a pretraining run, whose metrics are about several heads
    parts = set(bert.params) - bert.new_parts if is_run or not bert.unused_parts else ()
    try:
        return read_facts(bert.origin, parts)
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        warnings.warn(f"{CARD} says nothing of the model's training: {first_line(error)}", stacklevel=4)
        return None


def _metadata(bert: Any, name: str, facts: RunFacts | None, license: str | None) -> str:
    """Returns the YAML that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    usage = USAGES[type(bert.model).__name__]
    tag = usage.tag
    library = "transformers"
    if bert.sentence is not None and tag == "feature-extraction":
        tag = "sentence-similarity"
        library = "sentence-transformers"
    known: dict[str, Any] = {}
    if facts is not None:
        known["language"] = facts.setting("language")
        known["datasets"] = [*facts.datasets] or None
        known["metrics"] = list(dict.fromkeys(metric.kind for metric in facts.metrics)) or None
        known["eval_results"] = [
            EvalResult(
                task_type=tag or "text-classification",
                dataset_type=facts.datasets[0] if len(facts.datasets) == 1 else "custom",
                dataset_name=facts.held_out or "custom",
                dataset_split=EVALUATED_ON,
                metric_type=metric.kind,
                metric_name=metric.name,
                metric_value=round(metric.value, 4),
            )
            for metric in facts.metrics
        ] or None
    data = ModelCardData(
        base_model=_base_model(bert, facts),
        library_name=library,
        license=license,
        model_name=name.rpartition("/")[2],
        pipeline_tag=tag,
        tags=[bert.config.model_type, "jax", "bert_jax"],
        **known,
    )
    return data.to_yaml(line_break="\n")


def _base_model(bert: Any, facts: RunFacts | None) -> str | None:
    """Returns the hub's name of the model that this one was made from."""
    if facts is not None:
        return facts.base_model
    return bert.origin.hub_name if bert.origin is not None else None


def _page(bert: Any, name: str, facts: RunFacts | None) -> Iterator[str]:
    """Yields the lines of the page for people."""
    config: BertConfig = bert.config
    kind = architecture(type(bert.model), config.model_type)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(bert.params))
    yield f"# {name}\n"
    yield (
        f"A {config.family.title} model (`{kind}`) with {counted(config.num_hidden_layers, 'layer')} of "
        f"{config.hidden_size:,}, {counted(config.num_attention_heads, 'head')} per layer, a vocabulary of "
        f"{config.vocab_size:,} and {parameters:,} parameters, for up to {config.max_length:,} tokens.\n"
    )
    if config.label_names and "classifier" in type(bert.model).heads:
        yield f"Labels: {', '.join(f'`{label}`' for label in config.label_names)}.\n"
    yield from _use(bert, name)
    base = _base_model(bert, facts)
    if facts is None:
        if base is not None:
            yield f"## Training\n\nMade from [{base}](https://huggingface.co/{base}).\n"
        return
    yield from _training(facts, base, bert.origin)
    if facts.metrics:
        yield f"## Evaluation\n\nOn the {EVALUATED_ON}:\n\n| metric | value |\n|---|---|"
        yield from (f"| {metric.name} | {metric.value:.4g} |" for metric in facts.metrics)
        yield ""
    settings = json.dumps(facts.settings, indent=2, ensure_ascii=False)
    fence = "```"
    while fence in settings:
        fence += "`"
    yield f"<details>\n<summary>All settings</summary>\n\n{fence}json\n{settings}\n{fence}\n\n</details>\n"


def _use(bert: Any, name: str) -> Iterator[str]:
    """Yields how to use the model."""
    model: Bert = bert.model
    usage = USAGES[type(model).__name__]
    roles = bert.vocabulary.roles if bert.vocabulary is not None else {}
    call = usage.call.replace("{mask}", roles.get("mask", MASK))
    yield "## Use\n"
    yield f"```python\nfrom bert_jax.pipelines import {usage.pipeline}\n"
    yield f'{usage.pipeline}.load("{name}"){call}\n```\n'
    if usage.tag not in (None, "multiple-choice"):
        yield f'With transformers: `pipeline("{usage.tag}", model="{name}")`.\n'


def _training(facts: RunFacts, base: str | None, origin: Origin) -> Iterator[str]:
    """Yields how the model was trained."""
    if facts.task is None:
        pairs = facts.setting("objective") != "mlm"
        how = f"Pretrained with masked words{' and next sentences' if pairs else ''}"
    else:
        how = f"Fine-tuned for {facts.task}"
    start = f", from [{base}](https://huggingface.co/{base})" if base else ""
    sizes = [counted(number, name[:-1]) for name, number in facts.sizes.items()]
    data = f" on {facts.data}" if facts.data else ""
    amount = f" ({', '.join(sizes)})" if data and sizes else ""
    yield f"## Training\n\n{how}{data}{amount}{start}.\n"
    length = [f"{counted(origin.step, 'step')}"] if origin.step is not None else []
    epochs = facts.setting("epochs")
    length += [counted(epochs, "epoch")] if epochs is not None else []
    length += [f"{noun} {facts.setting(name)}" for name, noun in SHOWN if facts.setting(name) is not None]
    named = [package for package in ("bert_jax", "jax") if package in facts.versions]
    versions = ", ".join(f"{package} {facts.versions[package]}" for package in named)
    yield f"{', '.join(length)}{f'; {versions}' if versions else ''}.\n"
    if origin.changed:
        yield "Parameters were changed after the training.\n"
