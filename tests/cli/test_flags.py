"""Flags are promised: their names stay, and messages of the library name them."""

import pytest

from bert_jax.cli.flags import _documented_fields, as_flags, flags_in_messages, setting_names
from bert_jax.cli.programs import FLAGS, parse_pretraining
from bert_jax.config import BertConfig
from bert_jax.finetuning import settings as finetuning
from bert_jax.pretraining.presets import make_settings
from bert_jax.pretraining.settings import Optimizer, Settings
from bert_jax.tasks import TASKS
from bert_jax.training.settings import Devices

NAMES = {"batch_size", "plan", "packing", "steps"}
PRETRAINING = """
    accumulate add_tokens attention attention_probs_dropout_prob batch_size begin beta1 beta2 cache_dir checkpoint_every
    clip_norm coordinator corpus decay_share decay_steps device distributed document drop_duplicates dtype encoding
    eval_every eval_rows fill_mask fsdp held_out hidden_act hidden_dropout_prob hidden_size initializer_range
    intermediate_size
    keep_best keep_checkpoints language learning_rate log_every lowercase masked_share max_length
    max_position_embeddings max_predictions min_frequency model num_attention_heads num_hidden_layers num_processes
    num_workers objective on_nan optimizer output overwrite packing parallel phases plan position_embedding_type preset
    process_id quiet random_bits remat resume save_on_signal schedule seed short_probability steps strip_accents tensor
    text_column tokenizer tokenizer_kind track unroll vocab_size warmup_steps weight_decay whole_word_masking
"""
FINETUNING = """
    accumulate attention attention_probs_dropout_prob batch_size begin choice_columns class_weights clip_norm
    coordinator decay_share dev dev_split device distributed do dropout dtype encoding epochs eval_every freeze
    from_scratch fsdp glue glue_folder header label_column label_columns label_names label_separator
    label_smoothing layer_decay lead_column learning_rate log_every lora_alpha lora_rank max_answer_length
    max_length max_question_length mistakes model n_best null_threshold num_processes on_nan optimizer output
    overlap overwrite pack pair_column parallel patience plan problem_type process_id quiet random_bits remat
    resume save_on_signal schedule seed seeds special_tokens stride sweep sweep_batch_sizes sweep_epochs
    sweep_learning_rates tag_column tensor text_column track train train_split version_2 warmup_share weight_decay
    word_column
"""


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], None),
        (["--no-lowercase"], False),
        (["--lowercase"], True),
        (["--lowercase", "--seed", "3"], True),
        (["--lowercase", "False"], False),
        (["--lowercase", "None"], None),
    ],
)
def test_lowercase_needs_no_value(flags, wanted):
    assert parse_pretraining(["--preset", "tiny", *flags]).text.lowercase is wanted


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("`batch_size` must be at least 1", "--batch-size must be at least 1"),
        ("`steps=51` exceeds it", "--steps 51 exceeds it"),
        ("leave out `plan=True` or set `packing=False`", "leave out --plan or set --no-packing"),
        ("`input_ids` holds 7", "`input_ids` holds 7"),
        ("no settings: `", "no settings: `"),
    ],
)
def test_settings_become_flags_and_other_names_stay(message, wanted):
    assert as_flags(message, NAMES) == wanted


def test_an_exception_keeps_its_type_and_its_other_arguments():
    with pytest.raises(ValueError, match=r"^--steps$"), flags_in_messages(NAMES):
        raise ValueError("`steps`")
    with pytest.raises(FileNotFoundError) as caught, flags_in_messages(NAMES):
        raise FileNotFoundError(2, "No such file", "steps.txt")
    assert (caught.value.errno, caught.value.filename) == (2, "steps.txt")


def test_flags_keep_their_names(capsys):
    assert setting_names(Settings(), FLAGS) == set(PRETRAINING.split())
    with pytest.raises(SystemExit):
        parse_pretraining(["--help"])
    text = capsys.readouterr().out
    for name in PRETRAINING.split():
        assert f"--{name.replace('_', '-')}" in text
    assert "--num-labels" not in text

    settings = [finetuning.make_settings(task, model="m") for task in TASKS]
    assert set().union(*map(setting_names, settings)) == set(FINETUNING.split())


def test_flags_change_a_preset_and_fields_that_are_no_flags_stay():
    settings = parse_pretraining(["--preset", "mini", "--hidden-size", "512", "--max-length", "64", "--steps", "7"])
    assert settings == make_settings("mini", hidden_size=512, max_length=64, steps=7)
    assert settings.model == BertConfig.preset("mini", hidden_size=512, dtype="auto")


def test_a_value_that_a_dataclass_refuses_is_an_ordinary_error():
    with pytest.raises(ValueError, match="hidden_size"):
        parse_pretraining(["--hidden-size", "17"])


@pytest.mark.parametrize("flags", [["--hidden-act", "swish"], ["--dtype", "float64"], ["--no-such-flag"]])
def test_a_command_line_that_cannot_be_read_exits_with_2(flags):
    with pytest.raises(SystemExit) as caught:
        parse_pretraining(flags)
    assert caught.value.code == 2


def test_help_texts_are_wrapped_at_the_width_of_the_terminal_alone():
    _, text = _documented_fields(Devices)["remat"]
    assert "\n" not in text
    assert "or whole layers (full)" in text
    _, inherited = _documented_fields(Optimizer)["optimizer"]
    assert inherited.startswith("adamw; bert_adamw: without bias correction")
