"""Texts answered here and by others, side by side on this machine.

Real texts of mixed lengths, film reviews or the sentences of SST-2. `minilm` turns them into vectors, with the real
weights of all-MiniLM-L6-v2; `base` classifies them, with random weights. All read the same weights and the same texts,
cut to the window so that all do the same work, and must agree before they are timed. They take turns (A B A B ...) and
each reports the median of its rounds: a machine that slows down slows all. What is not installed is left out.

    python benchmarks/inference.py --model minilm --texts reviews
    python benchmarks/inference.py --model minilm --single
    python benchmarks/inference.py --startup

The others as their documentation has them: pipelines of transformers with one text at a time, their default, and with
`--batch`; onnxruntime with the model exported by PyTorch, its texts sorted by length and padded to the longest of a
batch, which is what sentence-transformers does too.
"""

import argparse
import csv
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common.profiles import profile, table
from common.timing import interleaved, minilm_folder, record, spread

from bert_jax import BertConfig
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.interop.loading import LoadedBert
from bert_jax.models import BertForSequenceClassification
from bert_jax.pipelines import Embedder, TextClassifier
from bert_jax.text.tokenizer import Tokenizer

SST2 = Path(__file__).resolve().parents[2] / "shared/data/sst2/dev.tsv"
CACHE = Path("~/.cache/bert_jax").expanduser()
TOLERANCE = 1e-4
WINDOW = 512  # tokens
PRODUCTS = "the matrix products alone"

Run = Callable[[list[str]], np.ndarray]  # texts to [texts, D] or [texts, C]


def model_folder(name: str, folder: str) -> str:
    """Returns the folder of the model; a base one is made in `folder`, with the vocabulary of MiniLM."""
    minilm = minilm_folder()
    if name == "minilm":
        return minilm
    model = BertForSequenceClassification(BertConfig.preset("base", initializer_range=0.05))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    LoadedBert(model, params, Tokenizer.load(minilm)).save_pretrained(folder)
    return folder


def mixed_texts(name: str, count: int, tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Returns texts drawn at random, cut where they are longer than the window, and how many tokens each has."""
    if name == "reviews":
        texts = list(movie_reviews(CACHE)["text"])
    else:
        with SST2.open(encoding="utf-8", newline="") as file:
            texts = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]
    encodings = tokenizer.encode_batch(texts, max_length=WINDOW)
    cut = [text[: max(end for _, end in one.offsets)] for text, one in zip(texts, encodings, strict=True)]
    return cut, [len(one) for one in encodings]


# The contestants: each a function that loads a model and returns what answers texts.


def bert_jax(model: str, folder: str) -> Run:
    if model == "minilm":
        return Embedder.load(folder)
    classify = TextClassifier.load(folder)
    return lambda texts: np.array([by_label(answer) for answer in classify(texts, top=None)])


def transformers_pipeline(model: str, folder: str, *, batch: int) -> Run:
    import torch
    from transformers import pipeline

    task = "feature-extraction" if model == "minilm" else "text-classification"
    answer: Any = pipeline(task, model=folder, device="cpu", dtype=torch.float32)
    cut = {"truncation": True, "max_length": WINDOW}
    if model == "minilm":
        return lambda texts: normalized(
            [x[0].mean(0).numpy() for x in answer(texts, return_tensors=True, batch_size=batch, tokenize_kwargs=cut)]
        )
    return lambda texts: np.array([by_label(one) for one in answer(texts, top_k=None, batch_size=batch, **cut)])


def sentence_transformers(model: str, folder: str, *, batch: int) -> Run:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(folder, device="cpu")
    encoder.max_seq_length = WINDOW
    return lambda texts: encoder.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)


def onnxruntime(model: str, folder: str, *, batch: int) -> Run:
    import onnxruntime
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as there:
        session = onnxruntime.InferenceSession(exported(model, folder, there), providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def run(texts: list[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        results: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            inputs = tokenizer([texts[i] for i in some], padding=True, truncation=True, return_tensors="np")
            (answers,) = session.run(None, {name: array.astype(np.int64) for name, array in inputs.items()})
            for i, answer, mask in zip(some, answers, inputs["attention_mask"], strict=True):
                results[i] = answer[mask == 1].mean(0) if model == "minilm" else answer
        if model == "minilm":
            return normalized(results)
        scores = np.exp(np.stack(results))
        return scores / scores.sum(1, keepdims=True)

    return run


def exported(model: str, folder: str, where: str) -> str:
    """Writes the model as ONNX, rows and tokens being free, and returns the file's path."""
    import torch
    import transformers

    kind = transformers.AutoModel if model == "minilm" else transformers.AutoModelForSequenceClassification
    network = kind.from_pretrained(folder, return_dict=False, dtype=torch.float32).eval()

    class Answer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.network(input_ids, attention_mask, token_type_ids)[0]

    names = ("input_ids", "attention_mask", "token_type_ids")
    rows = tuple(torch.ones(2, 8, dtype=torch.long) for _ in names)
    free = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=WINDOW)}
    path = f"{where}/model.onnx"
    torch.onnx.export(Answer().eval(), rows, path, input_names=names, dynamic_shapes=(free,) * 3, verbose=False)
    return path


def by_label(answer: list[dict[str, Any]]) -> list[float]:
    return [one["score"] for one in sorted(answer, key=lambda one: one["label"])]


def normalized(vectors: list[np.ndarray]) -> np.ndarray:
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def contestants(model: str, folder: str, *, batch: int, single: bool) -> dict[str, Run]:
    """Loads everybody whose packages are installed, and names the others."""
    pipeline = functools.partial(transformers_pipeline, model, folder)
    wanted: dict[str, tuple[tuple[str, ...], Callable[[], Run]]] = {
        "bert_jax": ((), lambda: bert_jax(model, folder)),
        "transformers pipeline": (("torch", "transformers"), lambda: pipeline(batch=1)),
    }
    if model == "minilm":
        wanted["sentence-transformers"] = (
            ("sentence_transformers",),
            lambda: sentence_transformers(model, folder, batch=batch),
        )
    elif not single:
        wanted[f"transformers pipeline, {batch} at a time"] = (
            ("torch", "transformers"),
            lambda: pipeline(batch=batch),
        )
    wanted["onnxruntime"] = (
        ("onnxruntime", "onnxscript", "torch", "transformers"),
        lambda: onnxruntime(model, folder, batch=batch),
    )
    loaded = {}
    for name, (packages, load) in wanted.items():
        if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
            print(f"{name} is left out: {', '.join(missing)} not installed")
        else:
            loaded[name] = load()
    return loaded


def matrix_products(config: BertConfig, tokens: int) -> Callable[[], None]:
    """Returns what does the encoder's products with weights alone, for about so many tokens."""
    D, F, rows = config.hidden_size, config.intermediate_size, 1024
    weights = [jnp.full(shape, 1e-3) for shape in ((D, D), (D, D), (D, D), (D, D), (D, F), (F, D))]
    layer = jax.jit(lambda x, weights: functools.reduce(jnp.matmul, weights, x))
    x = jnp.ones((rows, D))

    def run() -> None:
        for _ in range(config.num_hidden_layers * -(-tokens // rows)):
            layer(x, weights).block_until_ready()

    return run


def agree(runs: dict[str, Run], texts: list[str]) -> None:
    """Sees to it that all give the same answers."""
    want = runs["bert_jax"](texts)
    for name, run in runs.items():
        np.testing.assert_allclose(run(texts), want, atol=TOLERANCE, rtol=0, err_msg=name)


def many(options: argparse.Namespace, folder: str) -> None:
    """Texts a second, of a list of texts."""
    tokenizer = Tokenizer.load(folder)
    texts, lengths = mixed_texts(options.texts, options.count, tokenizer)
    runs = contestants(options.model, folder, batch=options.batch, single=False)
    agree(runs, texts[:24])
    turns = {name: functools.partial(run, texts) for name, run in runs.items()}
    turns[PRODUCTS] = matrix_products(BertConfig.load(f"{folder}/config.json"), sum(lengths))
    seconds = interleaved(turns, options.rounds)
    mine, products = (statistics.median(seconds[name]) for name in ("bert_jax", PRODUCTS))
    lines = [
        f"{len(texts)} texts of {min(lengths)} to {max(lengths)} tokens, on the average {statistics.mean(lengths):.0f}",
        "",
        "| | texts/s, median (worst to best) | bert_jax is faster by | of the rate of matrix products |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        ratio = "" if name in ("bert_jax", PRODUCTS) else f"{median / mine:.2f}x"
        rates = spread([len(texts) / time for time in times], 1)
        lines.append(f"| {name} | {rates} | {ratio} | {products / median:.0%} |")
    if options.profile:
        lines += ["", *table(profile(lambda: runs["bert_jax"](texts), options.profile))]
    record(f"Answering: {options.model}, {options.texts}", "\n".join(lines))


def one_by_one(options: argparse.Namespace, folder: str) -> None:
    """Milliseconds from a text to its answer, one text at a time."""
    tokenizer = Tokenizer.load(folder)
    runs = contestants(options.model, folder, batch=1, single=True)
    lines = ["| | tokens | ms a text, median (least to most) | bert_jax is faster by |", "|---|---|---|---|"]
    for source in ("sst2", "reviews"):
        texts, lengths = mixed_texts(source, options.single, tokenizer)
        seconds = interleaved({name: functools.partial(each, run, texts) for name, run in runs.items()}, options.rounds)
        for name, times in seconds.items():
            ratio = (
                ""
                if name == "bert_jax"
                else f"{statistics.median(times) / statistics.median(seconds['bert_jax']):.2f}x"
            )
            milliseconds = spread([1000 * time / len(texts) for time in times], 2)
            lines.append(f"| {name} | {statistics.mean(lengths):.0f} | {milliseconds} | {ratio} |")
    record(f"Answering: {options.model}, one text at a time", "\n".join(lines))


def each(run: Run, texts: list[str]) -> None:
    for text in texts:
        run([text])


STARTUP = {
    "bert_jax": ("import bert_jax", "from bert_jax.pipelines import Embedder", "answer = Embedder.load({folder!r})"),
    "transformers pipeline": (
        "import transformers",
        "from transformers import pipeline",
        "answer = pipeline('feature-extraction', model={folder!r}, device='cpu')",
    ),
    "sentence-transformers": (
        "import sentence_transformers",
        "from sentence_transformers import SentenceTransformer",
        "answer = SentenceTransformer({folder!r}, device='cpu').encode",
    ),
}
STAGES = """
import json, time
times = [time.perf_counter()]
for line in {lines!r}:
    exec(line)
    times.append(time.perf_counter())
print(json.dumps([after - before for before, after in zip(times, times[1:])]))
"""


def startup(options: argparse.Namespace, folder: str) -> None:
    """Seconds from a fresh process to its first answer."""
    stages: dict[str, list[list[float]]] = {}
    for _ in range(options.rounds):
        for name, lines in STARTUP.items():
            if importlib.util.find_spec(lines[0].split()[1]) is None:
                continue
            program = [line.format(folder=folder) for line in (*lines, "answer('a wonderful film .')")]
            program = STAGES.format(lines=program)
            output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
            stages.setdefault(name, []).append(json.loads(output.splitlines()[-1]))
    lines = ["| | the package | its class | a model | the first answer | all |", "|---|---|---|---|---|---|"]
    for name, rounds in stages.items():
        parts = [f"{statistics.median(times):.2f} s" for times in zip(*rounds, strict=True)]
        whole = statistics.median(map(sum, rounds))
        lines.append(f"| {name} | {' | '.join(parts)} | {whole:.2f} s |")
    record("Answering: from a fresh process to the first answer", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("minilm", "base"), default="minilm")
    parser.add_argument("--texts", choices=("reviews", "sst2"), default="reviews")
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32, help="texts of the others' batches")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--single", type=int, metavar="TEXTS", help="so many texts, one at a time")
    parser.add_argument("--startup", action="store_true", help="seconds to import, to load and to answer")
    parser.add_argument("--profile", metavar="DIR", help="also say where ours spends its time, see profiles.py")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the exporter
    with tempfile.TemporaryDirectory() as there:
        folder = model_folder(options.model, there)
        mode = startup if options.startup else one_by_one if options.single else many
        mode(options, folder)


if __name__ == "__main__":
    main()
