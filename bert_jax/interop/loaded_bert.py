"""A loaded model that is called on arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.interop import huggingface
from bert_jax.interop.formats.weights import OTHER_WEIGHTS
from bert_jax.interop.heads import architecture
from bert_jax.interop.model_card import require_license, write_card
from bert_jax.interop.pooling import MODULES, SentenceFiles
from bert_jax.interop.run_facts import Origin
from bert_jax.messages import counted
from bert_jax.models import Bert, BertForMultipleChoice, Outputs
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizer_files import no_vocabulary
from bert_jax.training.runs.manifests import CHECKPOINTS


@dataclass(frozen=True, repr=False)
class LoadedBert:
    """A model with its parameters and tokenizer; a call runs the jitted forward pass.

    Attributes:
        model: the Flax module.
        params: the parameter tree.
        vocabulary: the tokenizer, or None if the folder has none.
        new_parts: the parts of the model that were newly initialized.
        unused_parts: the parts of the checkpoint that the model does not have.
        sentence: the other files of a sentence-transformers folder, or None.
        origin: where the model was loaded from, for its model card; None if it was not loaded.
    """

    model: Bert
    params: Mapping[str, Any]
    vocabulary: Tokenizer | None = None
    new_parts: frozenset[str] = frozenset()
    sentence: SentenceFiles | None = None
    unused_parts: frozenset[str] = frozenset()
    origin: Origin | None = None

    def __repr__(self) -> str:
        config = self.config
        size = f"{counted(config.num_hidden_layers, 'layer')} of {config.hidden_size}, vocabulary {config.vocab_size:,}"
        return f"<{architecture(type(self.model), config.model_type)}: {size}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_forward"}  # a compiled program

    @property
    def config(self) -> BertConfig:
        return self.model.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            ValueError: the model was loaded without one.
        """
        if self.vocabulary is None:
            raise ValueError(no_vocabulary(None if self.origin is None else self.origin.folder))
        return self.vocabulary

    def __call__(
        self,
        input_ids: Any,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **inputs: Any,
    ) -> Outputs:
        """Runs the forward pass, without dropout; compiled once per shape.

        Args:
            input_ids: int [B, T]; [B, C, T] for multiple choice.
            **inputs: the model's other inputs, as arrays or nested lists: `attention_mask`, `token_type_ids`,
                `position_ids`, `masked_positions`, `cls_positions`.

        Returns:
            The model's named outputs, see `Bert.__call__`.

        Raises:
            ValueError: an array of a wrong shape, an id outside its table, or rows longer than the position table.
        """
        arrays = {"input_ids": input_ids} | {name: array for name, array in inputs.items() if array is not None}
        shape = np.shape(input_ids)
        axes = "[B, C, T]" if isinstance(self.model, BertForMultipleChoice) else "[B, T]"
        if len(shape) != axes.count(",") + 1 or not shape[-1]:
            found = f"shape {shape}" if shape else repr(input_ids)[:60]
            raise ValueError(f"input_ids must be {axes} with T above 0, got {found}")
        arrays = {name: self._validate(name, array, shape) for name, array in arrays.items()}
        return self._forward(self.params, arrays, output_hidden_states, output_attentions)

    @cached_property
    def _forward(self) -> Any:
        """The jitted forward pass."""

        def forward(params, arrays, output_hidden_states, output_attentions):
            return self.model.apply(
                {"params": params},
                **arrays,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
            )

        return jax.jit(forward, static_argnums=(2, 3))

    def _validate(self, name: str, array: Any, shape: tuple[int, ...]) -> Any:
        """Returns `array` as int32 after checking that it fits `shape` and that its values are in range."""
        values = np.asarray(array)
        # masked_positions and cls_positions have the rows of input_ids and any length; the others its whole shape. An
        # axis of size 1 broadcasts.
        expected = (shape[0], *values.shape[-1:]) if name in ("masked_positions", "cls_positions") else shape
        if values.ndim != len(expected) or any(
            size not in (1, full) for size, full in zip(values.shape, expected, strict=True)
        ):
            raise ValueError(f"{name} has shape {values.shape}, input_ids has {shape}")
        if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
            raise ValueError(f"{name} must be integers, got {values.dtype}")
        limits = {
            "input_ids": self.config.vocab_size,
            "token_type_ids": self.config.type_vocab_size if self.config.uses_token_types else None,
            "position_ids": self.config.max_length,
            "masked_positions": shape[-1],
            "cls_positions": shape[-1],
        }
        # JAX clamps an index that is out of range, so without this check the result would be silently wrong.
        limit = limits.get(name)
        if limit and values.size and not (values.min() >= 0 and values.max() < limit):
            worst = values.max() if values.max() >= limit else values.min()
            raise ValueError(f"{name} must lie in [0, {limit}), got {worst}")
        return jnp.asarray(values, jnp.int32)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str | None = None,
        overwrite: bool = False,
        license: str | None = None,
        name: str | None = None,
    ) -> None:
        """Writes config, weights, tokenizer and model card in Hugging Face's layout, for transformers and for `load`.

        The other files of a sentence-transformers folder are written back, unless the model classifies. The card,
        README.md, says what is known of the model's training; one that was written by hand is kept.

        Args:
            folder: created if missing; files of the same names are replaced.
            overwrite: delete weights in other formats and another model's `modules.json`, instead of refusing them.
            dtype: of the weights in the file: float32, bfloat16 or float16; default: that of the parameters.
            license: for the card: an identifier of the hub, such as apache-2.0.
            name: for the card: of the model; default: that of the folder.

        Raises:
            FileExistsError: the folder is that of a run, or has files of another model that would not be replaced.
            ValueError: an impossible `license` or `dtype`.
        """
        require_license(license)
        if (Path(folder) / CHECKPOINTS).exists():
            raise FileExistsError(f"{folder} is the folder of a run: choose another one")
        sentence = None if {"classifier", "span"}.intersection(self.model.heads) else self.sentence
        others = [*OTHER_WEIGHTS, *([] if sentence else [MODULES])]
        left = [Path(folder) / name for name in others if (Path(folder) / name).exists()]
        if left and not overwrite:
            names = ", ".join(path.name for path in left)
            raise FileExistsError(
                f"{folder} has {names} of another model, which would be mixed with this one: choose another folder, or "
                "set `overwrite`"
            )
        huggingface.write_model(folder, self.model, self.params, dtype=dtype)
        for path in left:
            path.unlink()
        if self.vocabulary is not None:
            self.vocabulary.save(folder)
        if sentence is not None:
            sentence.write(Path(folder))
        write_card(self, Path(folder), name=name or Path(folder).resolve().name, license=license)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        license: str | None = None,
        dtype: str | None = None,
        overwrite: bool = False,
        token: str | None = None,
    ) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face hub, in one commit, and returns the page's address.

        Args:
            repo: `owner/name`, of a user or an organization.
            private: make a private repository.
            license, dtype: as of `save_pretrained`.
            overwrite: add the commit to a repository that exists.
            token: with write access; default: that of `hf auth login` or of HF_TOKEN.

        Raises:
            ValueError: an impossible name or licence.
            FileExistsError: the repository exists, and `overwrite` is not set.
            PermissionError: no token, or one that may not write there.
            ConnectionError: the hub cannot be reached.
        """
        from bert_jax.interop.pushing import push

        return push(self, repo, private=private, license=license, dtype=dtype, overwrite=overwrite, token=token)

    def export(self, path: str | Path, *, platforms: Sequence[str] = ("cpu", "cuda", "tpu")) -> None:
        """Writes the forward pass and its weights as one file of StableHLO, which runs without this package.

        Args:
            path: the file; `bert_jax.interop.export` shows how to run it.
            platforms: the JAX platforms to compile for.

        Raises:
            ValueError: a multiple-choice model, because its inputs are not [B, T].
        """
        from bert_jax.interop.export import export_model

        export_model(path, self.model, self.params, platforms=platforms)
