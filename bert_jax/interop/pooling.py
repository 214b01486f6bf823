"""How a sentence-transformers folder pools token vectors into one vector per text: `modules.json` and what it names.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3.
"""

import re
from pathlib import Path
from typing import NamedTuple

from bert_jax.interop.formats.weights import name_file_in_errors, read_json

POOLING_FILES = ("modules.json", "1_Pooling/config.json")
SUPPORTED = {"Transformer", "Pooling", "Normalize"}
OLD_KEY = re.compile("pooling_mode_(.*?)(_tokens?)?")  # one key per mode, before sentence-transformers 5.2


class PoolingConfig(NamedTuple):
    """How to pool: `mean`, `cls`, `max` or another mode; and whether to normalize the result to length 1."""

    mode: str
    normalize: bool


def read_pooling(folder: str | Path) -> PoolingConfig | None:
    """Returns the pooling of a folder; None if it has no modules.json.

    Raises:
        ValueError: broken files, or modules that are not supported.
    """
    path = Path(folder) / POOLING_FILES[0]
    if not path.is_file():
        return None
    with name_file_in_errors(path, TypeError, LookupError):
        # [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}, ...] -> {"Pooling": "1_Pooling", ...}
        modules = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in read_json(path, list)}
        if unknown := modules.keys() - SUPPORTED:
            raise ValueError(f"the module {min(unknown)!r:.80} is not supported, only {', '.join(sorted(SUPPORTED))}")
        if "Pooling" not in modules:
            raise ValueError("there is no Pooling module")
    return PoolingConfig(_read_mode(path.parent / modules["Pooling"] / "config.json"), "Normalize" in modules)


def _read_mode(path: Path) -> str:
    """Returns the mode of a pooling module; several modes are joined by +."""
    values = read_json(path)
    if "pooling_mode" in values:
        modes = values["pooling_mode"]
        return modes if isinstance(modes, str) else "+".join(map(str, modes if isinstance(modes, list) else [modes]))
    enabled = (OLD_KEY.fullmatch(key) for key, value in values.items() if value is True)
    return "+".join(match[1] for match in enabled if match)
