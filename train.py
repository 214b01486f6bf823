"""Pretrain a BERT: masked words and sentence pairs, from text files to a folder that `bert_jax.load` reads.

python train.py -- a small BERT of film reviews, in about four minutes on two cores.

python train.py --corpus 'texts/*.txt' --preset base --output RUN -- BERT's published settings on your own text.

python train.py --output RUN --resume --steps 200000 -- go on where RUN stopped.

python train.py --preset base --plan -- what a run would take: memory, the largest batch, speed.
"""

from bert_jax.cli import process
from bert_jax.pretraining.program import main

if __name__ == "__main__":
    process.run(main, "train.py", anew=("--plan",))
