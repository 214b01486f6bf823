"""Time inference in bert_jax, transformers, sentence-transformers and onnxruntime on this machine.

Texts are real and of mixed lengths: film reviews or the sentences of SST-2. `minilm` embeds them with the trained
weights of all-MiniLM-L6-v2; `base` classifies them with random weights. All candidates read the same weights and the
same texts, truncated to 512 tokens, and must agree before they are timed. They alternate (A B A B ...) and each reports
the median of its rounds, so that a machine that slows down slows all. Packages that are not installed are left out.

    python benchmarks/inference.py --model minilm --texts reviews
    python benchmarks/inference.py --model minilm --single 32
    python benchmarks/inference.py --startup

The others run as documented: transformers' pipeline with one text at a time, its default, and with `--batch`;
onnxruntime with the model exported by PyTorch. For onnxruntime texts are sorted by length and padded to the longest of
a batch, as sentence-transformers does.
"""

import argparse
import csv
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common.inputs import CACHE, minilm_folder
from common.profiles import profile, tables
from common.results import make_parser, record
from common.timing import interleaved, spread

from bert_jax import BertConfig
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.interop.loading import LoadedBert
from bert_jax.models import BertForSequenceClassification
from bert_jax.pipelines import Embedder, TextClassifier
from bert_jax.text.tokenizer import Tokenizer

SST2 = Path(__file__).resolve().parents[2] / "shared/data/sst2/dev.tsv"
TOLERANCE = 1e-4
MAX_LENGTH = 512  # tokens
CHECKED_TEXTS = 24  # on which all candidates must agree
MATMUL = "matrix multiplications alone"

Run = Callable[[list[str]], np.ndarray]  # texts -> embeddings [texts, D] or class probabilities [texts, C]


def prepare_model(name: str, folder: str) -> str:
    """Returns the folder of the model; BERT-base is created in `folder`, with MiniLM's vocabulary."""
    minilm = minilm_folder()
    if name == "minilm":
        return minilm
    model = BertForSequenceClassification(BertConfig.preset("base", initializer_range=0.05))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    LoadedBert(model, params, Tokenizer.load(minilm)).save_pretrained(folder)
    return folder


def sample_texts(name: str, count: int, tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Returns random texts, truncated to MAX_LENGTH tokens, and the number of tokens of each."""
    if name == "reviews":
        texts = list(movie_reviews(CACHE)["text"])
    else:
        with SST2.open(encoding="utf-8", newline="") as file:
            texts = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]
    encodings = tokenizer.encode_batch(texts, max_length=MAX_LENGTH)
    truncated = [text[: max(end for _, end in one.offsets)] for text, one in zip(texts, encodings, strict=True)]
    return truncated, [len(one) for one in encodings]


# Candidates: each function loads a model and returns a function from texts to results.


def bert_jax(model: str, folder: str) -> Run:
    if model == "minilm":
        return Embedder.load(folder)
    classify = TextClassifier.load(folder)
    return lambda texts: np.array([scores_by_label(result) for result in classify(texts, top=None)])


def transformers_pipeline(model: str, folder: str, *, batch: int) -> Run:
    import torch
    from transformers import pipeline

    task = "feature-extraction" if model == "minilm" else "text-classification"
    pipe: Any = pipeline(task, model=folder, device="cpu", dtype=torch.float32)
    truncation = {"truncation": True, "max_length": MAX_LENGTH}

    def embed(texts: list[str]) -> np.ndarray:
        tokens = pipe(texts, return_tensors=True, batch_size=batch, tokenize_kwargs=truncation)
        return normalize([x[0].mean(0).numpy() for x in tokens])

    def classify(texts: list[str]) -> np.ndarray:
        results = pipe(texts, top_k=None, batch_size=batch, **truncation)
        return np.array([scores_by_label(result) for result in results])

    return embed if model == "minilm" else classify


def sentence_transformers(model: str, folder: str, *, batch: int) -> Run:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(folder, device="cpu")
    encoder.max_seq_length = MAX_LENGTH
    return lambda texts: encoder.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)


def onnxruntime(model: str, folder: str, *, batch: int) -> Run:
    import onnxruntime
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as export_folder:
        path = export_onnx(model, folder, export_folder)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def run(texts: list[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        results: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            inputs = tokenizer([texts[i] for i in indices], padding=True, truncation=True, return_tensors="np")
            (outputs,) = session.run(None, {name: array.astype(np.int64) for name, array in inputs.items()})
            for i, output, mask in zip(indices, outputs, inputs["attention_mask"], strict=True):
                results[i] = output[mask == 1].mean(0) if model == "minilm" else output
        if model == "minilm":
            return normalize(results)
        scores = np.exp(np.stack(results))
        return scores / scores.sum(1, keepdims=True)

    return run


def export_onnx(model: str, folder: str, export_folder: str) -> str:
    """Exports the model to ONNX, with dynamic rows and tokens; returns the file's path."""
    import torch
    import transformers

    kind = transformers.AutoModel if model == "minilm" else transformers.AutoModelForSequenceClassification
    network = kind.from_pretrained(folder, return_dict=False, dtype=torch.float32).eval()

    class FirstOutput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.network(input_ids, attention_mask, token_type_ids)[0]

    names = ("input_ids", "attention_mask", "token_type_ids")
    example = tuple(torch.ones(2, 8, dtype=torch.long) for _ in names)
    dynamic = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=MAX_LENGTH)}
    path = f"{export_folder}/model.onnx"
    torch.onnx.export(
        FirstOutput().eval(), example, path, input_names=names, dynamic_shapes=(dynamic,) * 3, verbose=False
    )
    return path


def scores_by_label(result: list[dict[str, Any]]) -> list[float]:
    return [entry["score"] for entry in sorted(result, key=lambda entry: entry["label"])]


def normalize(vectors: list[np.ndarray]) -> np.ndarray:
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def load_candidates(model: str, folder: str, *, batch: int, single: bool) -> dict[str, Run]:
    """Loads all candidates whose packages are installed, and prints the names of the others."""
    pipeline_at = partial(transformers_pipeline, model, folder)
    loaders: dict[str, tuple[tuple[str, ...], Callable[[], Run]]] = {
        "bert_jax": ((), lambda: bert_jax(model, folder)),
        "transformers pipeline": (("torch", "transformers"), lambda: pipeline_at(batch=1)),
    }
    if model == "minilm":
        loaders["sentence-transformers"] = (
            ("sentence_transformers",),
            lambda: sentence_transformers(model, folder, batch=batch),
        )
    elif not single:
        loaders[f"transformers pipeline, batch size {batch}"] = (
            ("torch", "transformers"),
            lambda: pipeline_at(batch=batch),
        )
    loaders["onnxruntime"] = (
        ("onnxruntime", "onnxscript", "torch", "transformers"),
        lambda: onnxruntime(model, folder, batch=batch),
    )
    candidates = {}
    for name, (packages, load) in loaders.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            print(f"{name} is skipped: {', '.join(missing)} not installed")
        else:
            candidates[name] = load()
    return candidates


def matmul_run(config: BertConfig, tokens: int) -> Callable[[], None]:
    """Returns a function that runs only the encoder's multiplications with weights, for about `tokens` tokens."""
    D = config.hidden_size
    F = config.intermediate_size
    rows = 1024
    weights = [jnp.full(shape, 1e-3) for shape in ((D, D), (D, D), (D, D), (D, D), (D, F), (F, D))]
    layer = jax.jit(lambda x, weights: reduce(jnp.matmul, weights, x))
    x = jnp.ones((rows, D))

    def run() -> None:
        for _ in range(config.num_hidden_layers * -(-tokens // rows)):
            layer(x, weights).block_until_ready()

    return run


def require_agreement(candidates: dict[str, Run], texts: list[str]) -> None:
    """Raises AssertionError unless all candidates return the same results as bert_jax."""
    expected = candidates["bert_jax"](texts)
    for name, run in candidates.items():
        np.testing.assert_allclose(run(texts), expected, atol=TOLERANCE, rtol=0, err_msg=name)


def measure_throughput(options: argparse.Namespace, folder: str) -> None:
    """Measures texts/s on a list of texts."""
    tokenizer = Tokenizer.load(folder)
    texts, lengths = sample_texts(options.texts, options.count, tokenizer)
    candidates = load_candidates(options.model, folder, batch=options.batch, single=False)
    require_agreement(candidates, texts[:CHECKED_TEXTS])
    runs: dict[str, Callable[[], object]] = {name: partial(run, texts) for name, run in candidates.items()}
    runs[MATMUL] = matmul_run(BertConfig.load(f"{folder}/config.json"), sum(lengths))
    seconds = interleaved(runs, options.rounds)
    own_median = statistics.median(seconds["bert_jax"])
    matmul_median = statistics.median(seconds[MATMUL])
    lines = [
        f"{len(texts)} texts of {min(lengths)} to {max(lengths)} tokens, {statistics.mean(lengths):.0f} on average",
        "",
        "| | texts/s, median (min to max) | speedup of bert_jax | of the matmul rate |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        speedup = "" if name in ("bert_jax", MATMUL) else f"{median / own_median:.2f}x"
        rates = spread([len(texts) / time for time in times], 1)
        lines.append(f"| {name} | {rates} | {speedup} | {matmul_median / median:.0%} |")
    if options.profile:
        lines += ["", *tables(profile(lambda: candidates["bert_jax"](texts), options.profile))]
    record(f"Inference: {options.model}, {options.texts}", "\n".join(lines))


def measure_latency(options: argparse.Namespace, folder: str) -> None:
    """Measures milliseconds per text, one text at a time."""
    tokenizer = Tokenizer.load(folder)
    candidates = load_candidates(options.model, folder, batch=1, single=True)
    lines = ["| | tokens | ms per text, median (min to max) | speedup of bert_jax |", "|---|---|---|---|"]
    for source in ("sst2", "reviews"):
        texts, lengths = sample_texts(source, options.single, tokenizer)
        seconds = interleaved(
            {name: partial(run_one_by_one, run, texts) for name, run in candidates.items()}, options.rounds
        )
        own_median = statistics.median(seconds["bert_jax"])
        for name, times in seconds.items():
            speedup = "" if name == "bert_jax" else f"{statistics.median(times) / own_median:.2f}x"
            milliseconds = spread([1000 * time / len(texts) for time in times], 2)
            lines.append(f"| {name} | {statistics.mean(lengths):.0f} | {milliseconds} | {speedup} |")
    record(f"Inference: {options.model}, one text at a time", "\n".join(lines))


def run_one_by_one(run: Run, texts: list[str]) -> None:
    for text in texts:
        run([text])


STARTUP = {
    "bert_jax": ("import bert_jax", "from bert_jax.pipelines import Embedder", "model = Embedder.load({folder!r})"),
    "transformers pipeline": (
        "import transformers",
        "from transformers import pipeline",
        "model = pipeline('feature-extraction', model={folder!r}, device='cpu')",
    ),
    "sentence-transformers": (
        "import sentence_transformers",
        "from sentence_transformers import SentenceTransformer",
        "model = SentenceTransformer({folder!r}, device='cpu').encode",
    ),
}
STARTUP_PROGRAM = """
import json, time
times = [time.perf_counter()]
for line in {lines!r}:
    exec(line)
    times.append(time.perf_counter())
print(json.dumps([after - before for before, after in zip(times, times[1:])]))
"""


def measure_startup(options: argparse.Namespace, folder: str) -> None:
    """Measures seconds from a new process to its first result."""
    seconds: dict[str, list[list[float]]] = {}
    for _ in range(options.rounds):
        for name, lines in STARTUP.items():
            if importlib.util.find_spec(lines[0].split()[1]) is None:
                continue
            stages = [line.format(folder=folder) for line in (*lines, "model('a wonderful film .')")]
            command = [sys.executable, "-c", STARTUP_PROGRAM.format(lines=stages)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds.setdefault(name, []).append(json.loads(output.splitlines()[-1]))
    lines = ["| | import package | import class | load model | first result | total |", "|---|---|---|---|---|---|"]
    for name, rounds in seconds.items():
        stages = [f"{statistics.median(times):.2f} s" for times in zip(*rounds, strict=True)]
        lines.append(f"| {name} | {' | '.join(stages)} | {statistics.median(map(sum, rounds)):.2f} s |")
    record("Inference: from a new process to the first result", "\n".join(lines))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=("minilm", "base"), default="minilm")
    parser.add_argument("--texts", choices=("reviews", "sst2"), default="reviews")
    parser.add_argument("--count", type=int, default=128, help="number of texts (default: 128)")
    parser.add_argument("--batch", type=int, default=32, help="batch size of the other packages (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each candidate (default: 5)")
    parser.add_argument("--single", type=int, metavar="N", help="run N texts, one at a time")
    parser.add_argument("--startup", action="store_true", help="time imports, loading and the first result")
    parser.add_argument("--profile", metavar="DIR", help="write a profile of bert_jax to DIR and print time by scope")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of PyTorch's ONNX exporter
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare_model(options.model, temporary)
        if options.startup:
            measure_startup(options, folder)
        elif options.single:
            measure_latency(options, folder)
        else:
            measure_throughput(options, folder)


if __name__ == "__main__":
    main()
