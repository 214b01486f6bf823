"""The weights are the model's, and the page shows them in a real browser: clicks, keys, light and dark, no network."""

import base64
import json
import re

import numpy as np
import pytest
import small_pipelines as small
from browser import browser, is_installed

import bert_jax
from bert_jax.cli.main import main
from bert_jax.interop.loading import LoadedBert
from bert_jax.plotting import AttentionMaps, attention_maps, attention_page, write_attention_page
from bert_jax.plotting.attention import MAX_TOKENS

STEP = 1 / 65535  # of the weights in the page
WICKED = "</script><script>window.stolen = 1</script>"
ARROW_RIGHT = "\ue014"


@pytest.fixture(scope="module")
def bert() -> LoadedBert:
    return small.bert("Bert")


def content(page: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page)[1])


def test_weights_are_those_of_the_model_and_each_token_reads_one_in_sum(bert):
    maps = attention_maps(bert, "where is the owl ?", "the owl")
    want = bert(**bert.tokenizer(["where is the owl ?"], ["the owl"]), output_attentions=True).attentions
    np.testing.assert_array_equal(maps.weights, np.stack([layer[0] for layer in want]))
    np.testing.assert_allclose(maps.weights.sum(-1), 1, rtol=1e-5)
    assert maps.tokens[0] == "[CLS]"
    assert maps.texts.count(None) == 3
    assert maps.texts.index(1) > maps.tokens.index("[SEP]")


def test_the_page_has_the_weights_and_nothing_from_outside(bert):
    maps = attention_maps(bert, "where is the owl ?", "the owl")
    page = attention_page(maps, model="small")
    found = content(page)
    weights = np.frombuffer(base64.b64decode(found["weights"]), "<u2").reshape(maps.weights.shape) * STEP
    np.testing.assert_allclose(weights, maps.weights, atol=STEP)
    assert (found["tokens"], found["texts"], found["model"]) == (maps.tokens, maps.texts, "small")
    assert "default-src 'none'" in page
    outside = re.findall(r"""(?:https?:)?//[\w.-]+\.\w+/?[^\s"']*""", page)
    assert set(outside) == {"http://www.w3.org/2000/svg"}  # the name of a namespace, which nobody opens


def test_texts_cannot_leave_their_element(bert):
    maps = AttentionMaps([WICKED], [0], np.ones((1, 1, 1, 1), np.float32))
    page = attention_page(maps, model=WICKED)
    assert WICKED not in page
    assert content(page)["tokens"] == [WICKED]


@pytest.mark.parametrize(
    ("text", "pair", "reason"),
    [
        ("", None, "the text is empty"),
        ("owl", "  ", "the text is empty"),
        ("owl " * 99, None, r"has 101 tokens, the model"),
    ],
)
def test_a_text_that_cannot_be_shown_is_refused(text, pair, reason, bert):
    with pytest.raises(ValueError, match=reason):
        attention_maps(bert, text, pair)


def test_a_page_has_a_limit_and_a_model_of_several_texts_is_refused(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(bert_jax.plotting.attention, "MAX_TOKENS", 4)
    with pytest.raises(ValueError, match=r"has 5 tokens, the page shows up to 4"):
        write_attention_page(tmp_path / "heads.html", bert, "where is owl")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="reads several texts at once"):
        attention_maps(small.bert("BertForMultipleChoice"), "owl")
    assert MAX_TOKENS == 128  # as the help of the command says


def test_the_command_writes_the_page(bert, tmp_path, capsys):
    bert.save_pretrained(tmp_path / "model")
    output = str(tmp_path / "heads.html")
    assert (
        main(["attention", str(tmp_path / "model"), "where is the owl ?", "--pair", "an owl", "--output", output]) == 0
    )
    assert capsys.readouterr().out == f"{output}\n"
    assert 1 in content((tmp_path / "heads.html").read_text())["texts"]
    assert main(["attention", str(tmp_path / "model"), " "]) == 1
    assert capsys.readouterr().err == "bert-jax: the text is empty\n"


@pytest.fixture(scope="module")
def page(bert, tmp_path_factory):
    """The page in Chromium."""
    if not is_installed():
        pytest.skip("chromium and chromedriver are not installed")
    path = tmp_path_factory.mktemp("page") / "heads.html"
    write_attention_page(path, bert, "where is the owl ?", "the owl")
    with browser() as opened:
        opened.open(path.as_uri())
        yield opened


def shown(page) -> str:
    return page.run("return document.getElementById('name').textContent")


def test_a_click_and_the_arrow_keys_change_the_head(page):
    assert shown(page) == "Layer 1, head 1"
    page.click("#head-1-0")
    assert shown(page) == "Layer 2, head 1"
    page.press(ARROW_RIGHT)
    assert shown(page) == "Layer 2, head 2"
    assert page.run("return document.activeElement.id") == "head-1-1"
    assert page.run("return document.querySelectorAll('#grid [aria-selected=true]').length") == 1


def test_a_token_shows_what_it_reads_and_stays_when_it_is_clicked(page, bert):
    page.click("#head-0-0")
    maps = attention_maps(bert, "where is the owl ?", "the owl")
    page.click("#text [data-token='4']")
    page.hover("#model")
    caption = page.run("return document.getElementById('caption').textContent")
    best = int(maps.weights[0, 0, 4].argmax())
    assert caption.startswith(f"{maps.tokens[4]} reads {maps.tokens[best]} ")
    page.press("\ue00c")  # Escape
    page.run("document.activeElement.blur()")
    assert page.run("return document.getElementById('caption').textContent").startswith("How much each token is read")


def test_views_and_colours_change(page):
    page.press("l")
    assert page.run("return document.querySelectorAll('#view path').length") > 0
    page.press("m")
    assert page.run("return document.querySelectorAll('#view canvas').length") == 1
    before = page.run("return getComputedStyle(document.body).backgroundColor")
    pixel = "return [...document.querySelector('#view canvas').getContext('2d').getImageData(0, 0, 1, 1).data]"
    colour = page.run(pixel)
    page.press("t")
    assert page.run("return getComputedStyle(document.body).backgroundColor") != before
    assert page.run(pixel) != colour


def test_the_shares_of_what_a_head_looks_at_are_all_of_it(page):
    shares = page.run("return kinds(1, 1)")
    assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_the_console_is_empty_and_nothing_was_requested(page):
    assert page.log() == []
    assert page.run("return performance.getEntriesByType('resource').length") == 0
