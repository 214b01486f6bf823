"""Fine-tune a BERT for classification, tagging, question answering or multiple choice.

python finetune.py classification --model runs/demo -- film reviews, negative or positive.

python finetune.py tokens --model SOURCE --train train.conll --dev dev.conll --output RUN -- named entities.

python finetune.py squad --model SOURCE --train train-v1.1.json --dev dev-v1.1.json --output RUN -- SQuAD.

python finetune.py multiple-choice --model SOURCE --train train.csv --dev val.csv --output RUN -- SWAG.

The program is `bert_jax.finetuning`; `bert-jax finetune` runs it too.
"""

import sys
from collections.abc import Sequence

from bert_jax.cli import process


def main(arguments: Sequence[str] | None = None) -> None:
    from bert_jax.cli import programs  # here, because it imports JAX, which takes seconds: see process.run

    programs.finetune(arguments, prog="finetune.py")


if __name__ == "__main__":
    sys.exit(process.run(main, "finetune.py", not_resumable=process.NOT_RESUMABLE["finetune"]))
