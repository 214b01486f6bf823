"""What a sentence-transformers folder says about the vector of a text: pooling, length, prompts.

The files are `modules.json`, which lists modules in folders of their own, and two more beside it. They are kept with a
model and written back with it.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import normalizers

from bert_jax.files import write_file
from bert_jax.functional.pooling import POOLINGS
from bert_jax.interop.formats.weights import JSON_LIMIT, name_file_in_errors, read_json
from bert_jax.text.tokenizer import Tokenizer

MODULES = "modules.json"
# The settings of the Transformer module; the first that is there is read, as sentence-transformers does it.
LENGTHS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
PROMPTS = "config_sentence_transformers.json"
SENTENCE_FILES = ("1_Pooling/config.json", *LENGTHS, PROMPTS)  # beside modules.json
FOLDERS = "[0-9]_*/config.json"  # the folders of modules, such as 1_Pooling
SUPPORTED = {"Transformer", "Pooling", "Normalize"}
OLD_KEYS = {  # of the modes of pooling, before sentence-transformers 5.2; the others are called like the mode
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
}


@dataclass(frozen=True)
class SentenceSettings:
    """How a text becomes a vector.

    Attributes:
        mode: `mean`, `cls` or another one of `functional.pooling`; several are joined by +, such as `cls+max`.
        normalize: whether the result is scaled to length 1.
        include_prompt: whether the tokens of a prompt are pooled.
        max_length: tokens to which a text is truncated; None: those of the tokenizer or the model.
        lowercase: whether a text is lowercased before the tokenizer reads it; see `lowercased`.
        prompts: texts in front of each text, by name.
        default_prompt: the name of the prompt that is used if none is named.
    """

    mode: str
    normalize: bool
    include_prompt: bool = True
    max_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


@dataclass(frozen=True)
class SentenceFiles:
    """The files of a sentence-transformers folder, except those of the model and its tokenizer.

    Attributes:
        folder: where they were read.
        contents: the bytes of each file, by its path in the folder.
    """

    folder: Path
    contents: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> "SentenceFiles | None":
        """Reads the files; None if the folder has no modules.json."""
        if not (folder / MODULES).is_file():
            return None
        files = [folder / name for name in (MODULES, *LENGTHS, PROMPTS)] + sorted(folder.glob(FOLDERS))
        small = [file for file in files if file.is_file() and file.stat().st_size <= JSON_LIMIT]
        return cls(folder, {file.relative_to(folder).as_posix(): file.read_bytes() for file in small})

    def write(self, folder: Path) -> None:
        """Writes the files; none, with a warning, if the model has modules that are not supported."""
        if unsupported := self.unsupported():
            warnings.warn(f"{folder}: {MODULES} is not written: {unsupported}", stacklevel=3)
            return
        for name, content in self.contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, content)

    def unsupported(self) -> str | None:
        """Returns what is not supported, or None."""
        if unknown := self.modules().keys() - SUPPORTED:
            return f"the module {min(unknown)!r:.80} is not supported, only {', '.join(sorted(SUPPORTED))}"
        return None

    def modules(self) -> dict[str, str]:
        """Returns the folder of each module: {"Pooling": "1_Pooling", ...}.

        Raises:
            ValueError: a broken modules.json.
        """
        with name_file_in_errors(self.folder / MODULES, TypeError, LookupError):
            modules = self._json(MODULES, list)
            return {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}

    def transformer(self) -> dict[str, Any]:
        """Returns the settings of the Transformer module, such as `max_seq_length`; empty if there are none.

        Raises:
            ValueError: a broken file.
        """
        names = [name for name in LENGTHS if name in self.contents]
        return self._json(names[0]) if names else {}

    def settings(self) -> SentenceSettings:
        """Returns what the files say.

        Raises:
            ValueError: broken files, or modules that are not supported.
        """
        modules = self.modules()
        with name_file_in_errors(self.folder / MODULES, TypeError, LookupError):
            if unsupported := self.unsupported():
                raise ValueError(unsupported)
            if "Pooling" not in modules:
                raise ValueError("there is no Pooling module")
            pooling = self._json(f"{modules['Pooling']}/config.json")
        lengths = self.transformer()
        said = self._json(PROMPTS) if PROMPTS in self.contents else {}
        length = lengths.get("max_seq_length")
        prompts = said.get("prompts") or {}
        default = said.get("default_prompt_name")
        if not isinstance(prompts, dict) or (default is not None and default not in prompts):
            raise ValueError(f"{self.folder / PROMPTS}: there is no prompt {default!r:.80} in {prompts!r:.80}")
        return SentenceSettings(
            mode=_mode(pooling),
            normalize="Normalize" in modules,
            include_prompt=pooling.get("include_prompt") is not False,
            max_length=length if type(length) is int and length > 0 else None,
            lowercase=lengths.get("do_lower_case") is True,
            prompts={str(name): str(prompt or "") for name, prompt in prompts.items()},
            default_prompt=default,
        )

    def _json(self, name: str, kind: type = dict) -> Any:
        if name not in self.contents:
            raise ValueError(f"{name!r:.80} is missing")
        return read_json(self.folder / name, kind, content=self.contents[name])


def lowercased(tokenizer: Tokenizer) -> Tokenizer:
    """Returns the tokenizer with lowercasing before everything else; itself if it lowercases already."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    own = backend.normalizer
    if isinstance(own, normalizers.BertNormalizer):
        if own.lowercase:
            return tokenizer
        own.strip_accents = bool(own.strip_accents)  # None would mean: strip if lowercase
        own.lowercase = True
    else:
        parts = [*own] if isinstance(own, normalizers.Sequence) else [own] if own is not None else []
        if any(isinstance(part, normalizers.Lowercase) for part in parts):
            return tokenizer
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
    return tokenizer.with_settings(backend)


def _mode(values: Mapping[str, Any]) -> str:
    """Returns the mode of a pooling module; several modes are joined by +."""
    if "pooling_mode" in values:
        modes = values["pooling_mode"]
        return modes if isinstance(modes, str) else "+".join(map(str, modes if isinstance(modes, list) else [modes]))
    enabled = [mode for mode in POOLINGS if values.get(OLD_KEYS.get(mode, f"pooling_mode_{mode}")) is True]
    return "+".join(enabled) or "mean"
