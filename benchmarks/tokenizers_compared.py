"""Compares the kinds of vocabularies on film reviews: training time, size, pieces per word, and speed of encoding.

Each kind is trained on some documents of the demo's corpus, all with the same number of tokens, and encodes the
sentences of others. Encoding a corpus (`encode_flat`) is timed in turns with the library's `encode_batch_fast`, on the
same sentences in the same process; the best of three is shown. Seconds are those of the processor, of all threads.

python benchmarks/tokenizers_compared.py --train 6000 --test 2000 --vocab-size 5000
"""

import argparse
import os
import tempfile
import time

import numpy as np

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core: a corpus is encoded by one process per core

from bert_jax.data.readers.cache import CACHE_DIR
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.text.sentences import split_sentences
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import KINDS

ROUNDS = 3


def compare(train: list[str], test: list[str], vocab_size: int) -> list[str]:
    """Returns the lines of a table, one per kind."""
    words = sum(len(text.split()) for text in test)
    lines = [
        "| kind | training, CPU s | pieces per word | words of one piece | [UNK] | ids/s | ids/s of `tokenizers` "
        "| tokenizer.json |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        started = time.process_time()
        tokenizer = Tokenizer.train(train, vocab_size, kind=kind)
        seconds = time.process_time() - started
        ids, _ = tokenizer.encode_flat(test)
        plain = tokenizer.text_backend()
        ours, theirs = [], []
        for _ in range(ROUNDS):
            fresh = Tokenizer.of(tokenizer.backend.to_str().encode())  # with an empty cache
            started = time.process_time()
            fresh.encode_flat(test)
            ours.append(time.process_time() - started)
            started = time.process_time()
            plain.encode_batch_fast(test, add_special_tokens=False)
            theirs.append(time.process_time() - started)
        whole = np.mean([len(tokens) == 1 for tokens in _pieces_of_words(tokenizer, test)])
        unknown = np.mean(ids == tokenizer.unk_id)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(folder)
            size = os.path.getsize(os.path.join(folder, "tokenizer.json"))
        lines.append(
            f"| {kind} | {seconds:.0f} | {len(ids) / words:.3f} | {whole:.1%} | {unknown:.4%} "
            f"| {len(ids) / min(ours):,.0f} | {len(ids) / min(theirs):,.0f} | {size / 1000:,.0f} kB |"
        )
    return lines


def _pieces_of_words(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    """Returns the ids of each word, up to the next beginning of a word."""
    ids, _ = tokenizer.encode_flat(texts)
    return np.split(ids, np.flatnonzero(~tokenizer.continuation[ids])[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=6000, help="documents to train on")
    parser.add_argument("--test", type=int, default=2000, help="documents to encode")
    parser.add_argument("--vocab-size", type=int, default=5000, help="tokens of each vocabulary")
    options = parser.parse_args()
    texts = movie_reviews(CACHE_DIR, drop_duplicates=False)["text"]
    train, test = list(texts[: options.train]), list(texts[-options.test :])
    test = [sentence for text in test for sentence in split_sentences(text)]
    characters = sum(map(len, train))
    print(
        f"{len(train):,} reviews of {characters:,} characters to train on, {len(test):,} sentences of others to encode"
    )
    for line in compare(train, test, options.vocab_size):
        print(line, flush=True)


if __name__ == "__main__":
    main()
