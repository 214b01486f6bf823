"""What fine-tuning refuses before any work: flags that say too much, too little or the impossible, and models that do
not fit them.
"""

from collections.abc import Iterable
from pathlib import Path

from bert_jax.config import BertConfig
from bert_jax.interop.heads import architecture
from bert_jax.models import Bert
from bert_jax.tasks import Part
from bert_jax.tools.finetuning import Run, Settings, Squad, Tagged, Texts, Training
from bert_jax.tools.flags import LONGEST_ROW, flag, require_at_least, require_at_most, require_positive, require_share

LARGEST_SEED = 2**32  # keys are made of 32 bits


def check(settings: Settings) -> None:
    """Refuses settings that cannot be.

    Raises:
        ValueError: naming the flag.
    """
    run, training, data, reports = settings.run, settings.training, settings.data, settings.reports
    require_at_least(1, run, "seeds")
    require_at_least(0, run, "seed")
    if run.seed + run.seeds > LARGEST_SEED:
        raise ValueError(f"--seed {run.seed} is too high: seeds lie below {LARGEST_SEED}")
    require_at_least(1, training, "epochs", "batch_size", "accumulate", "fsdp")
    require_at_least(0, training, "lora_rank", "patience", "eval_every", "freeze", "weight_decay", "clip_norm")
    require_positive(training, "learning_rate", "layer_decay", "lora_alpha")
    require_share(training, "warmup_share", "dropout", "attention_probs_dropout_prob")
    require_at_least(1, reports, "log_every")
    require_at_least(0, reports, "mistakes")
    require_at_most(LONGEST_ROW, data, "max_length")
    check_run_flags(run, training)
    if isinstance(data, Texts | Tagged):
        require_share(data, "label_smoothing")
    if isinstance(data, Tagged):
        require_at_least(0, data, "overlap")
    if isinstance(data, Squad):
        require_at_least(1, data, "stride", "max_question_length", "max_answer_length", "n_best")
    if isinstance(data, Texts):
        check_texts(run, data)
        return
    if run.do == "train" and data.train is None:
        raise ValueError("--train: a file or a dataset to train on is needed")
    if data.dev is None:
        raise ValueError("--dev: a file or a dataset to evaluate on is needed")


def check_run_flags(run: Run, training: Training) -> None:
    """Refuses flags of the run and of training that contradict each other."""
    if training.lora_rank and training.freeze is not None:
        raise ValueError("--lora-rank leaves everything but adapters and head as it is: --freeze says nothing more")
    if run.from_scratch and (training.lora_rank or training.freeze is not None):
        raise ValueError("--from-scratch has nothing learned: --lora-rank or --freeze would leave it so")
    if run.do != "train":
        for name in ("resume", "sweep", "from_scratch"):
            if getattr(run, name):
                raise ValueError(f"{flag(name)} is for training, not for --do {run.do}")
        if run.seeds > 1:
            raise ValueError(f"--seeds is for training, not for --do {run.do}")
    if run.sweep:
        if run.resume:
            raise ValueError("--sweep trains anew: it does not go with --resume")
        require_positive(run, "sweep_learning_rates", "sweep_batch_sizes", "sweep_epochs")
        for name in ("sweep_learning_rates", "sweep_batch_sizes", "sweep_epochs"):
            values = getattr(run, name)
            if not values or len(set(values)) < len(values):
                given = ", ".join(map(str, values)) or "none"
                raise ValueError(f"{flag(name)} wants one value or more, each once; got {given}")


def check_texts(run: Run, data: Texts) -> None:
    """Refuses settings of classification that contradict each other."""
    if data.glue:
        for name in ("train", "dev", "text_column", "pair_column", "label_column"):
            if getattr(data, name) is not None:
                raise ValueError(f"--glue names the data: {flag(name)} says nothing more")
        if data.problem_type != Texts.problem_type:
            raise ValueError("--glue names the problem: --problem-type says nothing more")
    elif data.glue_folder:
        raise ValueError("--glue-folder goes with --glue, which names the task")
    elif data.train is not None and data.dev is None:
        raise ValueError("--dev: a file or a dataset to evaluate on is needed")
    elif data.dev is not None and data.train is None and run.do == "train":
        raise ValueError("--train: a file or a dataset to train on is needed")
    if not data.label_separator:
        raise ValueError("--label-separator must not be empty")
    single = data.problem_type == "single_label_classification"
    if not single and (data.label_smoothing or data.class_weights != "none"):
        raise ValueError(f"--label-smoothing and --class-weights are for single labels, not for {data.problem_type}")


def check_model(settings: Settings, source: Path, config: BertConfig, named: str | None, wanted: type[Bert]) -> None:
    """Refuses a model that the settings ask too much of.

    Args:
        source: its folder.
        named: what its config.json calls it.
        wanted: the model that the task needs.

    Raises:
        ValueError: naming the flag, or what the model is.
    """
    run, training, data = settings.run, settings.training, settings.data
    output = Path(run.output).resolve()
    if output == source.resolve() or output in source.resolve().parents:
        raise ValueError(f"--output {run.output} holds the --model that is asked for: choose another folder")
    if run.do != "train" and named is not None and named != architecture(wanted):
        raise ValueError(f"{source} is a {named}; --do {run.do} needs a {architecture(wanted)}")
    longest = getattr(data, "max_length", 0)
    if longest > config.max_position_embeddings:  # sinusoids go on, but not the table that they are written as
        raise ValueError(f"--max-length {longest} is beyond the model's {config.max_position_embeddings} positions")
    if (training.freeze or 0) > config.num_hidden_layers:
        raise ValueError(f"--freeze {training.freeze}: the model has {config.num_hidden_layers} layers")


def check_pairs(source: Path, config: BertConfig, parts: Iterable[Part]) -> None:
    """Refuses pairs of texts for a model that knows one kind of token only.

    Raises:
        ValueError: naming the model.
    """
    for part in parts:
        sequences = part.features.sequences
        if config.type_vocab_size < 2 and (sequences.second < sequences.lengths).any():
            raise ValueError(f"{source} has one token type: it cannot tell the texts of a pair apart")
