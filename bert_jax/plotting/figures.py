"""Figures of matplotlib: one attention head, a packed row, learning curves, positions, nearest words.

Each function returns a `matplotlib.figure.Figure` that belongs to nobody: pyplot does not know it, so that it needs no
closing, and works in threads and without a screen.

Axes of arrays: T tokens, L layers, N heads, P positions, D hidden, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from bert_jax.functional.embeddings import sinusoidal_positions
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.plotting.attention import AttentionMaps, shown
from bert_jax.training.runs.metrics import METRICS, read_metrics

CELL = 0.28  # inches
SEQUENCE_COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2")
PADDING_COLOR = "#e9ecef"
WITHIN_ROW = "#f8f9fa"


class _ShownFigure(Figure):
    """A figure that a notebook shows, also where pyplot has not been imported and set up its own display."""

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def plot_attention(maps: AttentionMaps, layer: int, head: int) -> Figure:
    """Draws a head's weights as a matrix: rows are the tokens that read, columns those that are read.

    Args:
        layer, head: from 0; negative ones count from the end.

    Raises:
        ValueError: there is no such layer or head.
    """
    layers, heads, tokens, _ = maps.weights.shape
    for name, index, count in (("layer", layer, layers), ("head", head, heads)):
        if not -count <= index < count:
            raise ValueError(f"`{name}` must be in [{-count}, {count}), got {index}")
    size = max(3.5, CELL * tokens + 1.5)
    figure, axes = _figure(size + 0.8, size)
    image = axes.imshow(maps.weights[layer, head], cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    names = [shown(token) for token in maps.tokens]
    axes.set_xticks(range(tokens), names, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(tokens), names)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_title(f"layer {layer % layers + 1}, head {head % heads + 1}", loc="left", fontsize="medium")
    figure.colorbar(image, ax=axes, shrink=0.7, ticks=[0, 0.05, 0.25, 0.5, 1], label="attention weight")
    return figure


def plot_packed_row(batch: Mapping[str, np.ndarray], row: int = 0) -> Figure:
    """Draws which tokens of a packed row see which: sequences as squares, and the tokens to predict.

    Args:
        batch: in the batch format: `attention_mask` [B, T], the number of each token's sequence, 0 for padding; and, if
            present, `masked_positions` and `masked_weights` [B, P], `cls_positions` [B, S].

    Raises:
        ValueError: there is no such row.
    """
    masks = np.asarray(batch["attention_mask"])
    if not -len(masks) <= row < len(masks):
        raise ValueError(f"`row` must be in [{-len(masks)}, {len(masks)}), got {row}")
    mask = masks[row]  # [T]
    figure, axes = _figure(5.6, 5.9)
    visible = (mask[:, None] == mask[None, :]) & (mask[:, None] > 0)  # [T, T]
    axes.imshow(_rgb(np.where(visible, mask[:, None], -1)), interpolation="nearest")
    axes.set(xlabel="token that is read", ylabel="token that reads", xticks=_ends(mask), yticks=_ends(mask))
    sequences = len(np.unique(mask[mask > 0]))
    axes.set_title(f"{sequences} sequences, {(mask > 0).mean():.0%} of {len(mask)} tokens used", fontsize="medium")
    if "masked_positions" in batch:
        real = np.asarray(batch["masked_weights"])[row] > 0
        masked = np.asarray(batch["masked_positions"])[row][real]
        axes.plot(masked, masked, "o", color="black", markersize=3, label="to predict")
    if "cls_positions" in batch:
        starts = np.unique(np.asarray(batch["cls_positions"])[row])
        axes.plot(starts, starts, "s", color="white", markeredgecolor="black", markersize=5, label="[CLS]")
    if axes.lines:
        axes.legend(loc="upper right", fontsize="small")
    return figure


def plot_curves(
    runs: Mapping[str, str | Path] | Sequence[str | Path], metrics: Sequence[str] = ("loss", "eval_loss")
) -> Figure:
    """Draws metrics of several runs, a panel for each metric and a colour for each run; seeds share a colour.

    Args:
        runs: folders of runs, by the name in the legend or named by their folder.
        metrics: keys of metrics.jsonl.

    Raises:
        FileNotFoundError: a folder without metrics.jsonl.
        ValueError: no run has one of the metrics.
    """
    named = dict(runs) if isinstance(runs, Mapping) else {Path(run).name: run for run in runs}
    rows = {name: read_metrics(Path(run) / METRICS) for name, run in named.items()}
    figure, *panels = _figure(5.2 * len(metrics), 3.6, len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        for color, (name, found) in enumerate(rows.items()):
            for seed in dict.fromkeys(row.get("seed") for row in found):
                points = [(r["step"], r[metric]) for r in found if r.get("seed") == seed and r.get(metric) is not None]
                if points:
                    label = None if any(line.get_label() == name for line in axes.lines) else name
                    marker = "o" if len(points) < 30 else ""
                    axes.plot(*zip(*points, strict=True), f"C{color}", marker=marker, markersize=3, label=label)
        if not axes.lines:
            known = sorted({key for found in rows.values() for row in found for key in row})
            raise ValueError(f"no run has the metric {metric!r}; there are {', '.join(known)}")
        axes.set(xlabel="step", title=metric.replace("_", " "))
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    return figure


def plot_positions(bert: LoadedBert) -> Figure:
    """Draws the cosine similarity of the position embeddings of a model, [P, P]: neighbours are alike."""
    config = bert.config
    count = config.max_length
    if config.position_embedding_type == "sinusoidal":
        table = np.asarray(sinusoidal_positions(jnp.arange(count)[None], config.hidden_size, jnp.float32)[0])
    else:
        table = np.asarray(bert.params["embeddings"]["position"]["embedding"], np.float32)[config.position_offset :]
    unit = _normalized(table)
    figure, axes = _figure(5.4, 4.6)
    image = axes.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-1, vmax=1, origin="lower")
    axes.set(xlabel="position", ylabel="position")
    figure.colorbar(image, ax=axes, label="cosine similarity")
    return figure


def nearest_words(bert: LoadedBert, word: str, count: int = 10) -> list[tuple[str, float]]:
    """Returns the tokens whose embeddings are most similar to that of a word, with their cosine similarity.

    A word of several tokens has their mean; its own tokens are left out.

    Raises:
        ValueError: the vocabulary has no token of the word.
    """
    tokenizer = bert.tokenizer
    (encoding,) = tokenizer.encode_batch([word], add_special_tokens=False)
    ids = [token for token in encoding.ids if token != tokenizer.unk_id]
    if not ids:
        raise ValueError(f"the vocabulary has no token of {word!r}")
    size = tokenizer.vocab_size  # the table may have more rows
    table = _normalized(np.asarray(bert.params["embeddings"]["word"]["embedding"], np.float32)[:size])
    similar = table @ _normalized(table[ids].mean(0, keepdims=True))[0]
    similar[[*ids, *tokenizer.layout.ids]] = -np.inf
    best = np.argsort(-similar)[:count]
    return [(shown(tokenizer.tokens[index]), float(similar[index])) for index in best.tolist()]


def plot_nearest_words(bert: LoadedBert, words: Sequence[str], count: int = 8) -> Figure:
    """Draws the nearest words of some words, a panel each; see `nearest_words`."""
    figure, *panels = _figure(2.6 * len(words), 0.26 * count + 1.0, len(words))
    for axes, word in zip(panels, words, strict=True):
        names, values = zip(*reversed(nearest_words(bert, word, count)), strict=True)
        axes.barh(range(len(names)), values, color=SEQUENCE_COLORS[0])
        axes.set_yticks(range(len(names)), names)
        axes.set(title=word, xlabel="cosine similarity", xlim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(width: float, height: float, panels: int = 1) -> tuple[Any, ...]:
    """Returns a figure and its axes, side by side."""
    figure = _ShownFigure(figsize=(width, height), layout="constrained")
    axes: Any = figure.subplots(1, panels, squeeze=False)
    found: list[Axes] = list(axes[0])
    return figure, *found


def _normalized(vectors: np.ndarray) -> np.ndarray:
    """Returns rows of length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _rgb(sequences: np.ndarray) -> np.ndarray:
    """Returns the colour of each sequence, [..., 3]: 0 is padding, -1 what is not seen."""
    names = [WITHIN_ROW, PADDING_COLOR, *SEQUENCE_COLORS]
    palette = np.array([[int(name[start : start + 2], 16) for start in (1, 3, 5)] for name in names], np.uint8)
    cycled = np.where(sequences > 0, (sequences - 1) % len(SEQUENCE_COLORS) + 1, sequences)
    return palette[cycled + 1]


def _ends(mask: np.ndarray) -> np.ndarray:
    """Returns where sequences begin, and the last token."""
    return np.unique(np.concatenate([[0], np.flatnonzero(np.diff(mask)) + 1, [len(mask) - 1]]))
