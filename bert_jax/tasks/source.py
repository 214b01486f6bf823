"""The model that fine-tuning starts from, before its weights are read: config, tokenizer, and whether its head fits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.interop import huggingface
from bert_jax.interop.heads import architecture, known_model
from bert_jax.interop.loading import LoadedBert, load, locate, read_vocabulary
from bert_jax.models import Bert
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizer_files import no_vocabulary


@dataclass(frozen=True)
class ModelSource:
    """A model's folder, read except for the weights.

    Attributes:
        architecture: the model class that config.json names, by its family's name; None if it names none, or one that
            is unknown.
    """

    folder: Path
    config: BertConfig
    architecture: str | None
    tokenizer: Tokenizer

    @classmethod
    def find(cls, name: str, *, special_tokens: bool = False) -> "ModelSource":
        """Finds a model by folder or hub name.

        Args:
            special_tokens: read special tokens in texts as special tokens, whatever the tokenizer's settings say.

        Raises:
            OSError: there is no such model, or it cannot be fetched.
            ValueError: it is not a BERT, or has no vocabulary.
        """
        folder = locate(name)
        config, named = huggingface.read_config(folder)
        tokenizer = read_vocabulary(folder, config)
        if tokenizer is None:
            raise ValueError(no_vocabulary(folder))
        if special_tokens:
            tokenizer = tokenizer.with_settings(split_special_tokens=False)
        model = known_model(named, config.model_type)
        return cls(folder, config, model and architecture(model, config.model_type), tokenizer)

    @property
    def trained_length(self) -> int | None:
        """The sequence length of the model's fine-tuning; None if it is not recorded or is all positions."""
        length = self.tokenizer.max_length
        return length if length is not None and length < self.config.max_length else None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The model's label names; LABEL_0, LABEL_1, ... if it has none."""
        return self.config.label_names or tuple(f"LABEL_{index}" for index in range(self.config.num_labels))

    @property
    def columns(self) -> dict[str, str]:
        """The columns that the model was fine-tuned on, {role: name}; empty if they are not recorded."""
        return dict(self.config.data_columns or ())

    def architecture_of(self, model: type[Bert]) -> str:
        """Returns the name of a model class in this model's family."""
        return architecture(model, self.config.model_type)

    def reusable_labels(self, model: type[Bert], used: Collection[Any]) -> tuple[str, ...] | None:
        """Returns the label names of the model's head if the head is of this kind and they include all `used` labels.

        Training then keeps the head instead of initialising a new one. Otherwise returns None.
        """
        names = self.config.label_names if self.architecture == self.architecture_of(model) else None
        return names if names is not None and set(used) <= set(names) else None

    def has_head(self, model: type[Bert], changes: Mapping[str, Any]) -> bool:
        """Returns whether the model was trained for exactly this task, so that its head can be kept.

        Args:
            model: the model class of the task.
            changes: the config fields that the task sets, such as `label_names`; see `Task.config_changes`.
        """
        if self.architecture != self.architecture_of(model):
            return False
        config = self.config
        changes = {name: value for name, value in changes.items() if name != "data_columns"}
        # A task without changes (question answering, multiple choice) has only one possible head. A config.json without
        # a problem_type may be of any.
        return not changes or (
            config.problem_type in (None, changes.get("problem_type"))
            and config.label_names == changes.get("label_names")
            and config.num_labels == changes.get("num_labels", config.num_labels)
        )

    def load(
        self, model: type[Bert], changes: Mapping[str, Any], *, trained: bool = False, **more_changes: Any
    ) -> LoadedBert:
        """Reads the weights, float32, with the head of a task: the trained one if it fits, else a new one.

        Args:
            model, changes: see `has_head`.
            trained: whether the head must have been trained already.
            **more_changes: to the config, such as dropout rates.

        Raises:
            ValueError: `trained`, but there is no such head; or files are broken.
        """
        new_head = not trained and not self.has_head(model, changes)
        bert = load(
            self.folder,
            head=self.architecture_of(model),
            new_head=new_head,
            dtype="float32",
            **{**changes, **more_changes},
        )
        if trained and bert.new_parts:
            raise ValueError(f"{self.folder} has no trained {', '.join(sorted(bert.new_parts))}: fine-tune it first")
        return replace(bert, vocabulary=self.tokenizer)
