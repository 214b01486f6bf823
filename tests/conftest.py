"""Strict switches for the whole suite: several CPU devices, no implicit broadcasting, no warnings, no network."""

import gc
import os
import shutil
import signal
import tempfile

from compiling import xla_flags

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(8)}"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# Programs that several tests, or the processes they start or run in, have in common are compiled once.
os.environ["JAX_COMPILATION_CACHE_DIR"] = (
    os.environ["JAX_COMPILATION_CACHE_DIR"] if "PYTEST_XDIST_WORKER" in os.environ else tempfile.mkdtemp("compiled")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# A shell's background job ignores SIGINT, and the processes that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")
gc.disable()  # until the tests are collected: imports leave little to free


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the files with slow tests first, so that no worker is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    gc.freeze()  # no collection goes through all modules
    gc.set_threshold(20_000)  # a traced program has many objects, and few of them are garbage
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def curves_drawn_once():
    """Draws the curves of the first run with certain metrics; later runs with these get its picture, in no time."""
    from bert_jax.training.runs import reporting
    from bert_jax.training.runs.metrics import read_metrics

    draw = reporting._draw_curves
    pictures = {}

    def draw_once(run, panels):
        rows = read_metrics(run / "metrics.jsonl")
        kind = (*panels, *{(row.get("seed"), row.get("phase"), *sorted(row)): None for row in rows})
        if kind not in pictures:
            pictures[kind] = draw(run, panels).read_bytes()
        (run / "curves.png").write_bytes(pictures[kind])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "_draw_curves", draw_once)
        yield


@pytest.fixture
def folder(tmp_path):
    """A small pretrained model in Hugging Face's layout."""
    from small_checkpoints import model  # here, because most tests have no use for it

    model("BertForPreTraining").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


@pytest.fixture
def tokenizer(tmp_path_factory):
    """A tokenizer of as many tokens as the small models have."""
    from small_checkpoints import small_tokenizer

    return small_tokenizer(tmp_path_factory.mktemp("words"))
