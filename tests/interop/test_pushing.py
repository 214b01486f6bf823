"""A model is pushed to the hub complete and in one commit, or not at all and with one line that says why."""

import socket

import pytest
from hub_server import hub_server
from huggingface_hub import ModelCard, constants
from safetensors.numpy import load_file
from small_checkpoints import assert_same_bits, model

import bert_jax
from bert_jax.cli.main import main
from bert_jax.interop import huggingface
from bert_jax.interop.loading import LoadedBert

REPO = "anna/owl"


@pytest.fixture
def hub():
    with hub_server() as state:
        yield state


@pytest.fixture
def bert(tokenizer) -> LoadedBert:
    pretrained = model("BertForPreTraining")
    return LoadedBert(pretrained.model, pretrained.params, tokenizer)


def test_what_is_pushed_is_what_is_saved(hub, bert, tmp_path):
    url = bert.push_to_hub(REPO, private=True, license="apache-2.0", dtype="bfloat16")
    assert url == f"{constants.ENDPOINT}/{REPO}"
    assert hub.private == {REPO}
    (message,) = hub.commits
    assert message.startswith("Upload BertForPreTraining with bert_jax ")
    bert.save_pretrained(tmp_path / "saved", dtype="bfloat16", license="apache-2.0", name=REPO)
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert saved == {name: content for name, content in hub.repos[REPO].items() if name != ".gitattributes"}
    assert b"license: apache-2.0" in saved["README.md"]
    (tmp_path / "weights").write_bytes(hub.repos[REPO]["model.safetensors"])
    assert {str(array.dtype) for array in load_file(tmp_path / "weights").values()} == {"bfloat16"}


def test_a_repository_that_exists_needs_overwrite_and_loses_weights_in_other_formats(hub, bert):
    hub.repos[REPO] = {"pytorch_model.bin": b"old", "notes.md": b"kept"}
    with pytest.raises(FileExistsError, match=r"^anna/owl exists on the hub: .* set `overwrite`"):
        bert.push_to_hub(REPO)
    assert hub.repos[REPO] == {"pytorch_model.bin": b"old", "notes.md": b"kept"}
    bert.push_to_hub(REPO, overwrite=True)
    assert {"notes.md", "model.safetensors", "README.md"} <= hub.repos[REPO].keys()
    assert "pytorch_model.bin" not in hub.repos[REPO]
    assert REPO not in hub.private


def test_nothing_is_sent_before_the_folder_is_complete(hub, bert, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr(huggingface, "write_model", fail)
    with pytest.raises(OSError, match=r"^the disk is full"):
        bert.push_to_hub(REPO)
    assert hub.repos == {}
    assert {request.split()[0] for request in hub.requests} == {"GET"}


@pytest.mark.parametrize("name", ["owl", "a/b/c", "anna/o w l", "anna/--", "", "anna/owl.git"])
def test_an_impossible_name_is_refused_before_the_hub_is_asked(hub, bert, name):
    with pytest.raises(ValueError, match=r"^the name on the hub must be owner/name.*got"):
        bert.push_to_hub(name)
    assert hub.requests == []


def test_a_licence_must_be_an_identifier(bert, tmp_path):
    with pytest.raises(ValueError, match=r"^`license` must be an identifier.*got 'Apache 2'"):
        bert.save_pretrained(tmp_path / "saved", license="Apache 2")
    assert not (tmp_path / "saved").exists()


def test_without_a_token_or_with_a_wrong_one_it_says_how_to_log_in(hub, bert, monkeypatch):
    with pytest.raises(PermissionError, match=r"^anna/owl: the hub refuses the token .*hf auth login"):
        bert.push_to_hub(REPO, token="hf_wrong")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(PermissionError, match=r"^anna/owl: the hub needs a token: .*hf auth login"):
        bert.push_to_hub(REPO)
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("path", "code", "error", "line"),
    [
        ("create", 403, PermissionError, r"the token may not write to anna \(.*no rights.*\)"),
        ("create", 409, FileExistsError, r"exists on the hub \(.*no rights.*\)"),
        ("create", 400, OSError, r"the hub answers 400 \(.*no rights.*\)"),
        ("commit", 403, PermissionError, r"the token may not write to anna"),
        ("whoami", 503, OSError, r"the hub answers 503"),
    ],
)
def test_what_the_hub_refuses_is_one_line(path, code, error, line, hub, bert):
    hub.answer[path] = (code, "no rights, says the hub")
    with pytest.raises(error, match=line) as caught:
        bert.push_to_hub(REPO)
    assert len(str(caught.value).splitlines()) == 1
    assert all("model.safetensors" not in files for files in hub.repos.values())


def test_an_unreachable_hub_is_one_line(hub, bert, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    with pytest.raises(ConnectionError, match=rf"^anna/owl: the hub at {address} cannot be reached \("):
        bert.push_to_hub(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"cannot be reached \(.*offline"):
        bert.push_to_hub(REPO)


def test_the_command_pushes_a_folder_with_its_own_card(hub, bert, tmp_path, capsys, monkeypatch):
    bert.save_pretrained(tmp_path / "owl")
    (tmp_path / "owl" / "README.md").write_text("---\nlicense: mit\n---\nMy own page.\n")
    assert main(["push", str(tmp_path / "owl"), REPO, "--private"]) == 0
    assert capsys.readouterr().out == f"{constants.ENDPOINT}/{REPO}\n"
    card = ModelCard(hub.repos[REPO]["README.md"].decode())
    assert (card.data.license, card.text) == ("mit", "My own page.\n")
    assert hub.private == {REPO}
    assert main(["push", str(tmp_path / "owl"), REPO]) == 1
    assert "set --overwrite to add a commit" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "owl"), REPO, "--overwrite", "--license", "apache-2.0"]) == 0
    assert ModelCard(hub.repos[REPO]["README.md"].decode()).data.license == "apache-2.0"
    (tmp_path / "model").write_bytes(hub.repos[REPO]["model.safetensors"])
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setattr(bert_jax.interop.loading, "load", None)  # not even tried
    assert main(["push", str(tmp_path / "owl"), REPO]) == 1
    assert "needs a token" in capsys.readouterr().err


def test_a_pushed_model_is_the_model(hub, bert, tmp_path):
    bert.push_to_hub(REPO)
    for name, content in hub.repos[REPO].items():
        (tmp_path / name).write_bytes(content)
    assert_same_bits(bert_jax.load(tmp_path).params, bert.params)
