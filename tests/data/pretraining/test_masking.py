import math

import numpy as np
import pytest
from scipy import stats

from bert_jax.data.pretraining.masking import Vocabulary, mask_tokens, predictions_per_row
from bert_jax.data.pretraining.sequences import SHORTEST, SPECIAL_TOKENS
from bert_jax.text.layout import Layout

SIGMAS = 5  # a fair draw strays further once in two million
P_VALUE = 1e-4
PAD, UNK, CLS, SEP, MASK = 17, 6, 29, 3, 11  # nowhere near the usual ids
SPECIAL = np.array([PAD, UNK, CLS, SEP, MASK], np.int32)
ORDINARY = np.setdiff1d(np.arange(37), SPECIAL)
VOCABULARY = Vocabulary(
    37, PAD, MASK, Layout.bert(CLS, SEP), SPECIAL, np.isin(np.arange(37), ORDINARY[ORDINARY % 3 == 0])
)


def sequences(rows, T, seed=0):
    """Returns [CLS] A [SEP] B [SEP] of different lengths, some with an [UNK]."""
    draw = np.random.default_rng(seed)
    ids = draw.choice(np.append(ORDINARY, UNK), (rows, T)).astype(np.int32)
    length = draw.integers(5, T + 1, (rows, 1))
    position = np.arange(T)
    ids[(position == length - 1) | (position == length // 2)] = SEP
    ids[:, 0] = CLS
    return np.where(position < length, ids, PAD).astype(np.int32)


def mask(ids, *, share=0.15, predictions=None, seed=5, rows=None, **options):
    rows = np.arange(len(ids)) if rows is None else rows
    predictions = predictions or predictions_per_row(ids.shape[1], share)
    attention_mask = options.pop("attention_mask", (ids != PAD).astype(np.int32))
    return mask_tokens(
        ids,
        attention_mask,
        VOCABULARY,
        masked_share=share,
        predictions=predictions,
        seed=seed,
        rows=rows,
        **options,
    )


def chosen(masked, T):
    """Returns which tokens are predicted, bool [B, T]."""
    table = np.zeros((len(masked["input_ids"]), T), bool)
    row, slot = np.nonzero(masked["masked_weights"])
    table[row, masked["masked_positions"][row, slot]] = True
    return table


def wanted(ids, share, predictions):
    return [min(predictions, max(1, round(share * int((row != PAD).sum())))) for row in ids]


def words(row):
    """Returns the words of a row as lists of positions."""
    groups, before = [], False
    for position, token in enumerate(row):
        inside = token not in SPECIAL
        if inside and before and VOCABULARY.continuation[token]:
            groups[-1].append(position)
        elif inside:
            groups.append([position])
        before = inside
    return groups


def test_eighty_ten_ten():
    ids = sequences(6007, 67)
    masked = mask(ids, share=0.5)
    predicted = chosen(masked, 67)
    before, after = ids[predicted], masked["input_ids"][predicted]
    assert before.size > 100_000
    same = 0.1 / ORDINARY.size  # a random token may be the one that was there
    for outcome, share in [(after == MASK, 0.8), ((after != MASK) & (after != before), 0.1 - same)]:
        bound = SIGMAS * math.sqrt(before.size * share * (1 - share))
        assert abs(outcome.sum() - before.size * share) < bound
    assert abs((after == before).mean() - 0.1 - same) < 0.01


def test_random_tokens_are_uniform_over_the_ordinary_ones():
    ids = np.full((1009, 67), ORDINARY[4], np.int32)
    after = mask(ids, share=1.0)["input_ids"]
    count = np.bincount(after[after != MASK], minlength=37)
    assert not count[SPECIAL].any()
    others = np.delete(ORDINARY, 4)
    assert stats.chisquare(count[others]).pvalue > P_VALUE


@pytest.mark.parametrize("whole_words", [False, True])
def test_only_chosen_tokens_change_and_labels_are_the_original_tokens(whole_words):
    ids = sequences(101, 43)
    masked = mask(ids, whole_words=whole_words)
    predicted = chosen(masked, 43)
    np.testing.assert_array_equal(masked["input_ids"][~predicted], ids[~predicted])
    assert not np.array_equal(masked["input_ids"][predicted], ids[predicted])
    for row, positions, labels, weights in zip(
        ids,
        masked["masked_positions"],
        masked["masked_labels"],
        masked["masked_weights"],
        strict=True,
    ):
        n = int(weights.sum())
        assert weights[:n].all()
        assert (np.diff(positions[:n]) > 0).all()
        np.testing.assert_array_equal(labels[:n], row[positions[:n]])
        assert not positions[n:].any()
        assert not labels[n:].any()
    assert {name: values.dtype.name for name, values in masked.items()} == {
        "input_ids": "int32",
        "masked_positions": "int32",
        "masked_labels": "int32",
        "masked_weights": "float32",
    }


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("share", [0.15, 1.0])
def test_special_tokens_are_never_predicted(whole_words, share):
    ids = sequences(503, 43)
    assert not np.isin(ids[chosen(mask(ids, share=share, whole_words=whole_words), 43)], SPECIAL).any()


@pytest.mark.parametrize(("share", "predictions"), [(0.15, 7), (0.15, 2), (0.05, 3), (1.0, 53)])
def test_the_number_of_predictions_is_the_share_of_the_length_within_its_bounds(share, predictions):
    ids = sequences(503, 43)
    candidates = (~np.isin(ids, SPECIAL)).sum(axis=1)
    count = chosen(mask(ids, share=share, predictions=predictions), 43).sum(axis=1)
    np.testing.assert_array_equal(count, np.minimum(wanted(ids, share, predictions), candidates))


def test_every_token_is_equally_likely():
    ids = np.full((4001, 23), ORDINARY[0], np.int32)
    ids[:, 0], ids[:, 22] = CLS, SEP
    count = chosen(mask(ids), 23).sum(axis=0)
    assert stats.chisquare(count[1:22]).pvalue > P_VALUE


@pytest.mark.parametrize(("share", "predictions"), [(0.15, 7), (0.15, 3), (0.6, 26)])
def test_whole_words_are_masked_until_no_other_word_fits(share, predictions):
    ids = sequences(503, 43)
    predicted = chosen(mask(ids, share=share, predictions=predictions, whole_words=True), 43)
    split = 0
    for row, taken, most in zip(ids, predicted, wanted(ids, share, predictions), strict=True):
        room = most - taken.sum()
        assert room >= 0
        for word in words(row):
            assert taken[word].all() or (not taken[word].any() and len(word) > room)
            split += len(word) > 1 and taken[word].all()
    assert split > 100


def test_the_masks_of_a_row_do_not_depend_on_the_batch():
    ids = sequences(13, 43)
    together = mask(ids)
    order = np.array([7, 2, 11])
    apart = mask(ids[order], rows=order)
    for name in together:
        np.testing.assert_array_equal(together[name][order], apart[name])


def test_each_row_and_seed_has_its_own_masks():
    ids = np.full((11, 43), ORDINARY[0], np.int32)
    masks = [chosen(mask(ids, share=0.5, seed=seed), 43) for seed in (5, 6)]
    assert len(np.unique(np.concatenate(masks), axis=0)) == 22


@pytest.mark.parametrize("whole_words", [False, True])
def test_rows_without_maskable_tokens_and_empty_batches_do_not_change(whole_words):
    bare = np.array([[CLS, UNK, SEP, UNK, SEP, PAD, PAD]], np.int32)
    for ids in (bare, bare[:0]):
        masked = mask(ids, whole_words=whole_words)
        np.testing.assert_array_equal(masked["input_ids"], ids)
        assert not masked["masked_weights"].any()
        assert masked["masked_positions"].shape == (len(ids), 2)


def packed(rows, slots=4, T=131, seed=3):
    """Returns rows of several sequences of 5 to 40 tokens, and the sequence numbers of their tokens."""
    draw = np.random.default_rng(seed)
    ids, mask = np.full((rows, T), PAD, np.int32), np.zeros((rows, T), np.int32)
    for row in range(rows):
        end = 0
        for number in range(1, draw.integers(1, slots + 1) + 1):
            length = draw.integers(5, 41)
            if end + length <= T:
                (sequence,) = sequences(1, length, seed=int(draw.integers(2**31)))
                real = sequence[sequence != PAD]
                ids[row, end : end + real.size], mask[row, end : end + real.size] = real, number
                end += real.size
    return ids, mask


@pytest.mark.parametrize(("share", "most"), [(0.15, None), (0.15, 2), (0.01, None), (0.6, None)])
def test_each_sequence_of_a_row_has_its_own_share(share, most):
    ids, numbers = packed(211)
    P = predictions_per_row(131, share, 4)
    predicted = chosen(mask(ids, share=share, predictions=P, max_predictions=most, attention_mask=numbers), 131)
    candidates = ~np.isin(ids, SPECIAL)
    for number in range(1, 5):
        here = numbers == number
        length = here.sum(axis=1)
        n = np.maximum(1, np.rint(share * length)) if most is None else np.clip(np.rint(share * length), 1, most)
        np.testing.assert_array_equal((predicted & here).sum(axis=1), np.minimum(n, (candidates & here).sum(axis=1)))
    assert (numbers == 4).any()
    assert not predicted[~candidates].any()


def test_whole_words_are_masked_within_each_sequence():
    ids, numbers = packed(211)
    predicted = chosen(mask(ids, predictions=60, whole_words=True, attention_mask=numbers), 131)
    split = 0
    for row, taken, number in zip(ids, predicted, numbers, strict=True):
        for word in words(row):
            inside = number == number[word[0]]
            room = max(1, round(0.15 * inside.sum())) - (taken & inside).sum()
            assert taken[word].all() or (not taken[word].any() and len(word) > room)
            split += len(word) > 1 and taken[word].all()
    assert split > 100


def test_predictions_beyond_the_slots_are_dropped():
    ids, numbers = packed(23)
    masked = mask(ids, share=0.5, predictions=7, attention_mask=numbers)
    predicted = chosen(masked, 131)
    assert predicted.sum(axis=1).max() == masked["masked_weights"].shape[1] == 7
    np.testing.assert_array_equal(masked["input_ids"][~predicted], ids[~predicted])


@pytest.mark.parametrize("share", [0.01, 0.15, 0.5, 1.0])
@pytest.mark.parametrize(("T", "slots"), [(128, 8), (131, 26), (64, 2), (23, 7)])
@pytest.mark.parametrize("objective", ["mlm-nsp", "mlm"])
def test_slots_are_enough_for_the_sequences_of_any_row(share, T, slots, objective):
    """Finds the largest sum of budgets of the sequences of an objective by dynamic programming."""
    shortest = SHORTEST[objective]
    n = [0] * shortest
    n += [min(length - SPECIAL_TOKENS[objective], max(1, round(share * length))) for length in range(shortest, T + 1)]
    most = np.zeros((slots + 1, T + 1), int)
    for count in range(1, slots + 1):
        for tokens in range(T + 1):
            best = max(
                (most[count - 1, tokens - length] + n[length] for length in range(shortest, tokens + 1)), default=0
            )
            most[count, tokens] = max(best, most[count - 1, tokens])
    assert most[slots, T] <= predictions_per_row(T, share, slots, shortest)


@pytest.mark.parametrize(("max_length", "share", "P"), [(128, 0.15, 20), (512, 0.15, 77), (5, 0.15, 1), (32, 0.35, 12)])
def test_the_default_number_of_predictions_is_enough(max_length, share, P):
    assert predictions_per_row(max_length, share) == P >= max(1, round(share * max_length))
