"""Pretrain a BERT on text files.

python train.py -- a small BERT on film reviews, in a few minutes on two cores.

python train.py --corpus 'texts/*.txt' --preset base --output RUN -- BERT's published settings on your own text.

python train.py --model bert-base-uncased --corpus 'texts/*.txt' --output RUN -- continue from a model on your text.

python train.py --output RUN --resume --steps 200000 -- resume the run in RUN.

python train.py --preset base --plan -- memory, largest batch and speed of a run, without training.

python train.py --preset base --plan --device h100:8 -- the same for machines that you do not have.

The program is `bert_jax.pretraining`; `bert-jax pretrain` runs it too.
"""

import sys
from collections.abc import Sequence

from bert_jax.cli import process


def main(arguments: Sequence[str] | None = None) -> None:
    from bert_jax.cli import programs  # here, because it imports JAX, which takes seconds: see process.run

    programs.pretrain(arguments, prog="train.py")


if __name__ == "__main__":
    sys.exit(process.run(main, "train.py", not_resumable=process.NOT_RESUMABLE["pretrain"]))
