"""Pretrain a BERT: masked words and sentence pairs, from text files to a folder that `bert_jax.load` reads.

python train.py -- a small BERT of film reviews, in about four minutes on two cores.

python train.py --corpus 'texts/*.txt' --preset base --output RUN -- BERT's published settings on your own text.

python train.py --output RUN --resume --steps 200000 -- go on where RUN stopped.

python train.py --preset base --plan -- what a run would take: memory, the largest batch, speed.
"""

import sys
from collections.abc import Sequence

from bert_jax.cli import process


def main(arguments: Sequence[str] | None = None) -> None:
    from bert_jax.pretraining.program import main  # here: it imports JAX, and Ctrl-C may come meanwhile

    main(arguments)


if __name__ == "__main__":
    sys.exit(process.run(main, "train.py", not_resumable=("--plan",)))
