"""The special tokens of a tokenizer by role, and how they surround texts.

[CLS] of BERT and <s> of RoBERTa have one role, `cls`: they begin every sequence. A role is found, in this order, in the
settings beside the tokenizer (`cls_token`), in its post-processor, by the names that BERT and RoBERTa use, and in the
settings for `bos` and `eos`. The post-processor also defines the layout:

    BERT      [CLS] A [SEP]    [CLS] A [SEP] B [SEP]     B and the last [SEP] have token type 1
    RoBERTa   <s> A </s>       <s> A </s> </s> B </s>    all tokens have type 0

References: Devlin et al., BERT, 2018, section 3; Liu et al., RoBERTa, 2019.
"""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import models, processors

from bert_jax.text.layout import Layout

ROLES = ("pad", "unk", "cls", "sep", "mask")
REQUIRED = ("pad", "cls", "sep")
NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}
STAND_INS = {"cls": "bos", "sep": "eos"}  # some families name these alone


def find_roles(backend: tokenizers.Tokenizer, named: Mapping[str, str]) -> dict[str, str]:
    """Returns the special token of each role that the tokenizer has, in the order of `ROLES`.

    Args:
        named: the tokens that the settings name, by role; also `bos` and `eos`.
    """
    vocabulary = backend.get_vocab()
    own = _own_roles(backend, vocabulary)
    roles = {}
    for role in ROLES:
        token = named.get(role) or own.get(role)
        candidates = (*NAMES[role], named.get(STAND_INS.get(role, ""))) if token is None else (token,)
        known = [name for name in candidates if name in vocabulary]
        if known:
            roles[role] = known[0]
    return roles


def require_roles(backend: tokenizers.Tokenizer, roles: Mapping[str, str], named: Mapping[str, str]) -> None:
    """Raises ValueError if `find_roles` found no token for a role that every tokenizer must have.

    `unk` and `mask` may be missing, unless the settings give them another name than the vocabulary does.
    """
    required = (*REQUIRED, "unk") if isinstance(backend.model, models.WordPiece) else REQUIRED
    vocabulary = backend.get_vocab()
    missing = []
    for role in ROLES:
        usual = NAMES[role]
        renamed = role in named and any(name in vocabulary for name in usual)
        if role not in roles and (role in required or renamed):
            missing.append(
                f"{role}_token {named[role]!r:.60}" if role in named else f"{role}_token ({' or '.join(usual)})"
            )
    if missing:
        raise ValueError(f"the vocabulary of {len(vocabulary)} tokens has no {', no '.join(missing)}")


def install_layout(backend: tokenizers.Tokenizer, roles: Mapping[str, str]) -> Layout:
    """Returns the layout of the tokenizer's post-processor; a tokenizer without special tokens there gets one.

    It gets BERT's if its `cls` token has BERT's name, or else RoBERTa's.

    Raises:
        ValueError: a layout that is not supported.
    """
    vocabulary = backend.get_vocab()
    like_bert = Layout.bert(vocabulary[roles["cls"]], vocabulary[roles["sep"]])
    layout = _read_layout(backend, roles["cls"])
    if layout is None:
        own = backend.post_processor
        bert = roles["cls"] == NAMES["cls"][0]
        backend.post_processor = _bert_template(backend, roles) if bert else _roberta_template(backend, roles)
        if own is not None:  # one that corrects offsets
            backend.post_processor = processors.Sequence([own, backend.post_processor])
        layout = _read_layout(backend, roles["cls"])
        assert layout is not None
    elif layout == like_bert and isinstance(backend.model, models.WordPiece):
        backend.post_processor = _bert_template(backend, roles)  # one form of it, for one fingerprint
    return layout


def _read_layout(backend: tokenizers.Tokenizer, token: str) -> Layout | None:
    """Returns how a tokenizer surrounds texts, or None if it adds nothing.

    Args:
        token: a special token, which is one token wherever it is in a text.
    """
    single = backend.encode(token)
    pair = backend.encode(token, token)
    if len(single.ids) == 1 and len(pair.ids) == 2:
        return None
    text = single.sequence_ids.index(0)
    first = pair.sequence_ids.index(0)
    second = pair.sequence_ids.index(1)
    layout = Layout(
        prefix=tuple(single.ids[:text]),
        suffix=tuple(single.ids[text + 1 :]),
        middle=tuple(pair.ids[first + 1 : second]),
        pair_suffix=tuple(pair.ids[second + 1 :]),
        segments=pair.type_ids[second] == 1,
    )
    if not layout.prefix or tuple(pair.ids[:first]) != layout.prefix:
        raise ValueError(
            "the post-processor is not supported: it must put the same special tokens, at least one, before a single "
            f"text ({single.tokens[:text]}) and before the first of two ({pair.tokens[:first]})"
        )
    types = [0] * second + [int(layout.segments)] * (len(pair.ids) - second)
    if any(single.type_ids) or pair.type_ids != types:
        raise ValueError(
            "the post-processor is not supported: token types must be 0, or 1 from the second text on, got "
            f"{single.type_ids} for a text and {pair.type_ids} for two"
        )
    return layout


def _bert_template(backend: tokenizers.Tokenizer, roles: Mapping[str, str]) -> processors.TemplateProcessing:
    cls, sep = roles["cls"], roles["sep"]
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )


def _roberta_template(backend: tokenizers.Tokenizer, roles: Mapping[str, str]) -> processors.TemplateProcessing:
    cls, sep = roles["cls"], roles["sep"]
    return processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, sep, "$B", sep],
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys((cls, sep))],
    )


def _own_roles(backend: tokenizers.Tokenizer, vocabulary: Mapping[str, int]) -> dict[str, str]:
    """Returns the tokens that the model and the post-processor use for unknown text and around texts."""
    found = _roles_of_processor(_state(backend.post_processor))
    if isinstance(backend.model, models.Unigram):
        state = _state(backend.model)
        token = None if state["unk_id"] is None else state["vocab"][state["unk_id"]][0]
    else:
        token = getattr(backend.model, "unk_token", None)
    return found | ({"unk": token} if token is not None and token in vocabulary else {})


def _roles_of_processor(state: Mapping[str, Any]) -> dict[str, str]:
    """Returns the `cls` and `sep` tokens of a post-processor: the ones before and after a single text."""
    if state.get("type") == "Sequence":
        found: dict[str, str] = {}
        for part in state["processors"]:
            found |= _roles_of_processor(part)
        return found
    if "cls" in state and "sep" in state:  # BertProcessing, RobertaProcessing
        return {role: state[role][0] for role in ("cls", "sep")}
    if state.get("type") != "TemplateProcessing":
        return {}
    text = next(place for place, piece in enumerate(state["single"]) if "Sequence" in piece)
    around = {"cls": state["single"][:text], "sep": state["single"][text + 1 :]}
    return {
        role: state["special_tokens"][pieces[0]["SpecialToken"]["id"]]["tokens"][0]
        for role, pieces in around.items()
        if pieces
    }


def _state(part: Any) -> dict[str, Any]:
    """Returns the JSON of a part of a tokenizer; empty if there is none."""
    return {} if part is None else json.loads(part.__getstate__())
