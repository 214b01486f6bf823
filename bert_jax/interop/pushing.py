"""Uploads a model to the Hugging Face hub, through `huggingface_hub`: its tokens, its endpoint, its transfers.

The folder is complete before anything is sent, and everything appears in one commit. What can be refused early is asked
before the folder is written: the name, the token, and whether the repository exists.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from bert_jax.interop.formats.weights import OTHER_WEIGHTS
from bert_jax.interop.heads import architecture
from bert_jax.interop.model_card import require_license
from bert_jax.messages import first_line

LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token with write access"


def push(
    bert: Any,
    repo: str,
    *,
    private: bool = False,
    license: str | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    token: str | None = None,
) -> str:
    """Uploads a `LoadedBert`; arguments and errors are those of `LoadedBert.push_to_hub`."""
    require_license(license)
    _require_name(repo)
    api = hub.HfApi(token=token)
    with _one_line(repo):
        api.whoami()
        present = _files(api, repo)
    if present is not None and not overwrite:
        raise FileExistsError(f"{repo} exists on the hub: choose another name, or set `overwrite` to add a commit")
    with tempfile.TemporaryDirectory(prefix="bert_jax-push-") as folder:
        bert.save_pretrained(folder, dtype=dtype, license=license, name=repo)
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        names = {path.relative_to(folder).as_posix(): path for path in files}
        with _one_line(repo):
            if present is None:
                api.create_repo(repo, private=private)
            added = [hub.CommitOperationAdd(name, path) for name, path in names.items()]
            stale = {*OTHER_WEIGHTS}.intersection(present or ()) - names.keys()
            kind = architecture(type(bert.model), bert.config.model_type)
            commit = api.create_commit(
                repo,
                [*added, *(hub.CommitOperationDelete(name) for name in sorted(stale))],
                commit_message=f"Upload {kind} with bert_jax {version('bert_jax')}",
            )
    return str(commit.repo_url)


def require_token(repo: str) -> None:
    """Raises ValueError for an impossible name, and PermissionError without a token; the hub is not asked."""
    _require_name(repo)
    with _one_line(repo):
        if hub.get_token() is None:
            raise LocalTokenNotFoundError


def _require_name(repo: str) -> None:
    """Raises ValueError unless a name can be that of a repository."""
    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise ValueError(
            f"the name on the hub must be owner/name, of letters, digits, '-', '_' and '.', got {repo!r:.100}"
        )


def _files(api: hub.HfApi, repo: str) -> list[str] | None:
    """Returns the names of the files in a repository; None if it does not exist, or may not be seen."""
    try:
        return [file.rfilename for file in api.model_info(repo).siblings or ()]
    except RepositoryNotFoundError:
        return None


@contextmanager
def _one_line(repo: str) -> Iterator[None]:
    """Turns errors of the hub, of its library and of the network into one line that says what to do."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise PermissionError(f"{repo}: the hub needs a token: {LOGIN}") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        reason = error.server_message or first_line(error)
        if code == 401:
            raise PermissionError(f"{repo}: the hub refuses the token ({reason}): {LOGIN}") from None
        if code in (403, 404):
            owner = repo.partition("/")[0]
            raise PermissionError(f"{repo}: the token may not write to {owner} ({reason}): {LOGIN}") from None
        if code == 409:
            raise FileExistsError(f"{repo} exists on the hub ({reason}): choose another name") from None
        raise OSError(f"{repo}: the hub answers {code} ({reason})") from None
    except Exception as error:  # which one depends on the library below: httpx, or hf_xet with its RuntimeError
        network = isinstance(error, ConnectionError | TimeoutError | RuntimeError)
        if not network and not type(error).__module__.startswith("http"):
            raise
        where = hub.constants.ENDPOINT
        reason = first_line(error.__cause__ or error)
        raise ConnectionError(f"{repo}: the hub at {where} cannot be reached ({reason})") from None
