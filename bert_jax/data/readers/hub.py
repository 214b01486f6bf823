"""Asks the Hugging Face hub once, for a few seconds; its libraries retry an unreachable hub for half a minute."""

import os
import queue
import re
import threading

import huggingface_hub as hub

TIMEOUT = 5.0  # seconds, unless HF_HUB_ETAG_TIMEOUT is set
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")
_FILE_SUFFIX = re.compile(r"\.(txt|text|csv|tsv|jsonl?|ndjson|parquet|gz|zip|xz|bz2|zst|lz4)$")


def may_be_dataset(source: str) -> bool:
    """Returns whether a source can be the name of a dataset on the hub, `owner/name:config`; the hub is not asked."""
    return bool(_HUB_NAME.fullmatch(source)) and not _FILE_SUFFIX.search(source)


def request_file(
    name: str, file: str, *, revision: str | None = None, repo_type: str | None = None
) -> Exception | None:
    """Requests the metadata of a file on the hub; returns None if it is served, otherwise the exception.

    An `HfHubHTTPError` is an answer of the hub, such as "not found". Any other exception means that the hub cannot be
    reached; which one depends on the HTTP library.
    """
    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", TIMEOUT))
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def request() -> None:
        try:
            url = hub.hf_hub_url(name, file, revision=revision, repo_type=repo_type)
            hub.get_hf_file_metadata(url, timeout=timeout)
            answers.put(None)
        except Exception as error:
            answers.put(error)

    # In a thread, because name resolution has no timeout and a host's addresses are tried one after the other. A
    # daemon, because the program must not wait for it at exit.
    threading.Thread(target=request, daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return TimeoutError(f"no answer within {timeout:g} seconds (HF_HUB_ETAG_TIMEOUT)")
