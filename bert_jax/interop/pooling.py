"""How a folder of sentence-transformers makes one vector of a text: its `modules.json`, and what that points to.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3.
"""

import re
from pathlib import Path
from typing import NamedTuple

from bert_jax.interop.formats.weights import blame, read_json

POOLING_FILES = ("modules.json", "1_Pooling/config.json")
KNOWN = {"Transformer", "Pooling", "Normalize"}
OLD_KEY = re.compile("pooling_mode_(.*?)(_tokens?)?")  # one for each mode, before sentence-transformers 5.2


class Pooled(NamedTuple):
    """How the vectors of a text's tokens become one: by which mode, and whether that is brought to length 1."""

    mode: str
    normalize: bool


def read_pooling(folder: str | Path) -> Pooled | None:
    """Reads how a folder pools; None where it does not say.

    Raises:
        ValueError: files that are broken, or modules that do something else.
    """
    path = Path(folder) / POOLING_FILES[0]
    if not path.is_file():
        return None
    with blame(path, TypeError, LookupError):
        modules = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in read_json(path, list)}
        if unknown := modules.keys() - KNOWN:
            raise ValueError(f"the module {min(unknown)!r:.80} is not supported; there are {', '.join(sorted(KNOWN))}")
        if "Pooling" not in modules:
            raise ValueError("wanted a Pooling among the modules")
    return Pooled(read_mode(path.parent / modules["Pooling"] / "config.json"), "Normalize" in modules)


def read_mode(path: Path) -> str:
    """Reads the mode of a module that pools: `mean`, `cls`, `max` or another; several have a + between."""
    values = read_json(path)
    if "pooling_mode" in values:
        modes = values["pooling_mode"]
        return modes if isinstance(modes, str) else "+".join(map(str, modes if isinstance(modes, list) else [modes]))
    on = (OLD_KEY.fullmatch(key) for key, value in values.items() if value is True)
    return "+".join(match[1] for match in on if match)
