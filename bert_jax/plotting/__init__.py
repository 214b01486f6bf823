"""Pictures of models and runs: attention as a page to explore, and figures of matplotlib.

A figure is returned and not shown: a notebook shows it, and `figure.savefig("heads.png")` writes it.
"""

from bert_jax.plotting.attention import AttentionMaps, attention_maps, attention_page, write_attention_page
from bert_jax.plotting.figures import (
    nearest_words,
    plot_attention,
    plot_curves,
    plot_nearest_words,
    plot_packed_row,
    plot_positions,
)

__all__ = [
    "AttentionMaps",
    "attention_maps",
    "attention_page",
    "nearest_words",
    "plot_attention",
    "plot_curves",
    "plot_nearest_words",
    "plot_packed_row",
    "plot_positions",
    "write_attention_page",
]
