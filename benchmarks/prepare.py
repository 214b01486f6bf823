"""Time `bert-jax prepare`: tokens per second and core, engines, restarts, memory, and a store of very many parts.

The text is that of installed packages' docstrings and of film reviews, each document once. The engines of two processes
prepare it in turns (A B A B ...). The speed of a core is that of its processor time, because other programs may run.

    python benchmarks/prepare.py --rounds 3
    python benchmarks/prepare.py --parts 10000

The end is arithmetic, not a measurement: what nodes with DGX A100's cores would need at this speed for BERT's corpus
and for 1 TB, if the disk keeps up. NVIDIA's LDDL (https://github.com/NVIDIA/LDDL) states under two minutes for BERT's
corpus on 32 DGX A100; its time includes sentence pairs, which are made here while training.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from common.inputs import CACHE, CORPUS, LOW_MEMORY, train_tokenizer
from common.processes import MEBI, PrivatePeak, parse_options, run_in_new_process
from common.results import make_parser, record
from common.timing import interleaved

from bert_jax.data.preparation import inputs, settings
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.engines.ray_cluster import on_ray
from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.preparation.stages import Engine, Work
from bert_jax.data.preparation.store import PreparedCorpus
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts

PART = 4  # MiB
COPIES = 5  # of the text, for the engines: the time that more text takes is without their start
WORKERS = 2
BERT_WORDS = 3.3e9  # Devlin et al., 2018, section 3.1
TERABYTE = 1e12
NODES = (1, 8, 32)
NODE_CORES = 128  # of a DGX A100


def quiet(_line: str) -> None:
    pass


def write_texts(folder: Path) -> Path:
    """Writes the docstrings and the reviews to one file."""
    path = folder / CORPUS
    script = Path(__file__).with_name("docstring_corpus.py")
    subprocess.run([sys.executable, script, path], check=True, stdout=subprocess.DEVNULL)
    with path.open("a", encoding="utf-8") as file:
        for text in Texts(movie_reviews(CACHE)):
            file.write("\n" + text.replace("\n", " ") + "\n")
    return path


def preparation(folder: Path, corpus: Path, store: str = "store") -> Preparation:
    return Preparation(str(folder / store), (str(corpus),), tokenizer=str(folder / "tokenizer"), part_size=PART)


def measure(folder: str, corpus: str) -> dict[str, float]:
    """Prepares a corpus in this process; returns tokens, seconds of processor time, and the memory that it took."""
    work = preparation(Path(folder), Path(corpus), "alone")
    with PrivatePeak() as peak:
        start = time.process_time()
        prepared = prepare(work, local(1), say=quiet)
        seconds = time.process_time() - start
    shutil.rmtree(work.output)
    tokens = prepared.train.num_tokens + prepared.held_out.num_tokens
    return {"tokens": tokens, "seconds": seconds, "memory": peak.bytes}


def open_store(folder: str) -> dict[str, float]:
    """Opens a store and reads its last tokens; returns the seconds."""
    start = time.perf_counter()
    prepared = PreparedCorpus.open(Path(folder))
    prepared.train.span(prepared.train.num_tokens - 1, 1)
    return {"seconds": time.perf_counter() - start}


def compare(rounds: int) -> None:
    """Measures one core, the engines, a restart and the memory, and records the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_tokenizer().save(folder / "tokenizer")
        corpus = write_texts(folder)
        size = corpus.stat().st_size
        words = len(corpus.read_text(encoding="utf-8").split())
        alone = [
            run_in_new_process(__file__, LOW_MEMORY, folder=name, corpus=str(corpus)) for _ in range(max(1, rounds))
        ]
        half = folder / "half.txt"
        half.write_bytes(corpus.read_bytes()[: size // 2].rpartition(b"\n\n")[0])
        smaller = run_in_new_process(__file__, LOW_MEMORY, folder=name, corpus=str(half))
        copies = folder / "copies.txt"
        copies.write_bytes(b"\n\n".join([corpus.read_bytes()] * COPIES))
        engines = {"local": local(WORKERS), "Ray": _on_a_new_cluster}
        runs = {
            f"{engine}, {path.stem}": _new_store(folder, path, engines[engine])
            for path in (corpus, copies)
            for engine in engines
        }
        seconds = interleaved(runs, rounds)
        again = interleaved({"again": lambda: prepare(preparation(folder, copies), local(1), say=quiet)}, rounds)
    tokens = alone[0]["tokens"]
    rate = statistics.median(one["tokens"] / one["seconds"] for one in alone)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    more = {engine: medians[f"{engine}, copies"] - medians[f"{engine}, corpus"] for engine in engines}
    lines = [
        f"{size / MEBI:.1f} MiB of text, {words:,} words, {tokens:,.0f} tokens, parts of {PART} MiB",
        "",
        "| | |",
        "|---|---|",
        f"| tokens/s of one core (processor time, a process, its tokenizer given) | {rate:,.0f} |",
        *(f"| two processes, {name}: seconds, with their start | {medians[name]:.1f} |" for name in medians),
        *(f"| {engine}: seconds for {COPIES - 1} more copies | {more[engine]:.1f} |" for engine in engines),
        f"| Ray / local, without their start | {more['Ray'] / more['local']:.2f} |",
        f"| {COPIES} copies, again: the seconds to find that all is whole | {statistics.median(again['again']):.2f} |",
        f"| memory of a worker beyond its start, half of the text: MiB | {smaller['memory'] / MEBI:.0f} |",
        f"| the same, all of it: MiB | {alone[0]['memory'] / MEBI:.0f} |",
        "",
        *on_paper(rate, tokens / words, size / tokens),
    ]
    record("Prepare: tokens in parts", "\n".join(lines))


def _on_a_new_cluster(work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
    """The engine of Ray, with a cluster of this machine that starts and ends."""
    yield from on_ray("local")(work, store, parts)
    ray.shutdown()


def _new_store(folder: Path, corpus: Path, engine: Engine) -> Callable[[], Any]:
    """Returns a function that prepares the corpus from the beginning."""

    def run() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        prepare(preparation(folder, corpus), engine, say=quiet)

    return run


def on_paper(rate: float, tokens_per_word: float, bytes_per_token: float) -> list[str]:
    """Returns a table of the seconds that nodes would need at `rate` tokens/s a core."""
    corpora = {
        "BERT's corpus, 3.3 billion words": BERT_WORDS * tokens_per_word,
        "1 TB of text": TERABYTE / bytes_per_token,
    }
    lines = [
        f"On paper, {NODE_CORES} cores a node at this speed, {tokens_per_word:.2f} tokens a word, "
        f"{bytes_per_token:.2f} bytes a token; a node then reads {rate * bytes_per_token * NODE_CORES / 1e9:.1f} GB/s:",
        "",
        f"| seconds | {' | '.join(f'{nodes} nodes' for nodes in NODES)} |",
        "|---|" + "---|" * len(NODES),
    ]
    for name, tokens in corpora.items():
        seconds = (f"{tokens / (rate * NODE_CORES * nodes):.1f}" for nodes in NODES)
        lines.append(f"| {name} | {' | '.join(seconds)} |")
    return lines


def open_many(count: int) -> None:
    """Makes a store of `count` parts of a document each, and times how it is opened in a new process."""
    settings.MEBI, inputs.SMALLEST_COST = 1, 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_tokenizer().save(folder / "tokenizer")
        corpus = folder / CORPUS
        corpus.write_text("\n\n".join(f"document {number:09d} is short." for number in range(count)))
        work = Preparation(str(folder / "store"), (str(corpus),), tokenizer=str(folder / "tokenizer"), part_size=20)
        start = time.perf_counter()
        prepare(work, local(1), say=quiet)
        made = time.perf_counter() - start
        parts = len(list((folder / "store").glob("part-*")))
        opened = run_in_new_process(__file__, open_folder=str(folder / "store"))["seconds"]
    record("Prepare: many parts", f"A store of {parts:,} parts, made in {made:.0f} s, opens in {opened:.2f} s.")


def work_in_new_process(open_folder: str | None = None, **arguments: str) -> dict[str, float]:
    return measure(**arguments) if open_folder is None else open_store(open_folder)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each engine (default: 3)")
    parser.add_argument("--parts", type=int, help="instead, open a store of this many parts")
    options = parse_options(parser, work_in_new_process)
    if options.parts:
        open_many(options.parts)
    else:
        compare(options.rounds)


if __name__ == "__main__":
    main()
