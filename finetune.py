"""Fine-tune a BERT: to classify, to tag, to answer questions, to choose; leaves a model that the pipelines load.

python finetune.py classification --model runs/demo -- film reviews, negative or positive.

python finetune.py tokens --model SOURCE --train train.conll --dev dev.conll --output RUN -- named entities.

python finetune.py squad --model SOURCE --train train-v1.1.json --dev dev-v1.1.json --output RUN -- answers in a text.

python finetune.py multiple-choice --model SOURCE --train train.csv --dev val.csv --output RUN -- SWAG.
"""

import sys
from collections.abc import Sequence

from bert_jax.cli import process


def main(arguments: Sequence[str] | None = None) -> None:
    from bert_jax.finetuning.program import main  # here: it imports JAX, and Ctrl-C may come meanwhile

    main(arguments)


if __name__ == "__main__":
    sys.exit(process.run(main, "finetune.py", not_resumable=("--sweep", "evaluate", "predict")))
