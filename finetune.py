"""Fine-tune a BERT: to classify, to tag, to answer questions, to choose; leaves a model that the pipelines load.

python finetune.py classification --model runs/demo -- film reviews, negative or positive.

python finetune.py tokens --model SOURCE --train train.conll --dev dev.conll --output RUN -- named entities.

python finetune.py squad --model SOURCE --train train-v1.1.json --dev dev-v1.1.json --output RUN -- answers in a text.

python finetune.py multiple-choice --model SOURCE --train train.csv --dev val.csv --output RUN -- SWAG.
"""

from bert_jax.cli import process
from bert_jax.finetuning.program import main

if __name__ == "__main__":
    process.run(main, "finetune.py", anew=("--sweep", "evaluate", "predict"))
