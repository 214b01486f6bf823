"""The types of the public functions are known to a user's type checker, and a mistake is found there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SNIPPET = """
import bert_jax
from bert_jax import finetuning, plotting, pretraining
from bert_jax.pipelines import Embedder

bert = bert_jax.load("runs/demo")
reveal_type(bert)
reveal_type(bert.params)
reveal_type(bert.push_to_hub("anna/owl", private=True))
reveal_type(bert_jax.BertConfig.preset("tiny").hidden_size)
reveal_type(Embedder.load("runs/demo"))
reveal_type(pretraining.pretrain(pretraining.make_settings("tiny", steps=3)).metrics)
reveal_type(finetuning.finetune(finetuning.make_settings("tokens", model="runs/demo")).model)
reveal_type(plotting.attention_maps(bert, "an owl").tokens)
reveal_type(bert_jax.__version__)
bert.save_pretrained("owl", licence="mit")
bert_jax.load(3)
"""
TYPES = [
    "LoadedBert", "Mapping[str, Any]", "str", "int", "Embedder", "dict[str, float]", "LoadedBert", "list[str]", "str",
]  # fmt: skip
MISTAKES = ['No parameter named "licence"', 'Argument of type "Literal[3]" cannot be assigned to parameter "source"']


def test_a_users_type_checker_knows_the_types_and_finds_mistakes(tmp_path):
    pytest.importorskip("pyright", reason="pyright is not installed")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    settings = {"include": ["snippet.py"], "extraPaths": [str(Path(__file__).parents[1])]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    revealed = [one["message"] for one in found if one["severity"] == "information"]
    assert [message.split(" is ")[1].strip('"') for message in revealed] == TYPES
    errors = [one["message"] for one in found if one["severity"] == "error"]
    assert [error.splitlines()[0][: len(mistake)] for error, mistake in zip(errors, MISTAKES, strict=True)] == MISTAKES
