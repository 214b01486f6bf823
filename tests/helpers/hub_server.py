"""A stand-in for the Hugging Face hub's API on this machine: repositories, uploads and commits, kept in memory."""

import base64
import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import close_session, constants

TOKEN = "hf_of_anna"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubState:
    """What the stand-in knows.

    Attributes:
        repos: name -> {file: content}.
        private: the names of private repositories.
        requests: method and path of each request, in order.
        commits: the message of each commit.
        answer: path -> (code, message) to refuse it with.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.commits: list[str] = []
        self.large: dict[str, bytes] = {}
        self.answer: dict[str, tuple[int, str]] = {}


class HubHandler(BaseHTTPRequestHandler):
    """Answers as the hub does, as far as an upload needs it."""

    state: HubState

    def do_GET(self) -> None:
        if not self.allowed():
            return
        if self.path == "/api/whoami-v2":
            self.reply({"name": "anna", "type": "user", "orgs": []})
        elif (name := self.path.removeprefix("/api/models/")) in self.state.repos:
            files = [{"rfilename": file} for file in self.state.repos[name]]
            self.reply({"id": name, "modelId": name, "siblings": files, "sha": COMMIT, "tags": []})
        else:
            self.refuse(404, "Repository not found", "RepoNotFound")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.allowed():
            return
        if self.path == "/api/repos/create":
            self.create(json.loads(content))
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(content)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            self.reply(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            host = f"http://{self.headers['Host']}"
            uploads = [
                {**one, "authenticated": True, "actions": {"upload": {"href": f"{host}/storage/{one['oid']}"}}}
                for one in objects
            ]
            self.reply({"transfer": "basic", "objects": uploads})
        elif "/commit/" in self.path:
            self.commit(self.path.split("/commit/")[0].removeprefix("/api/models/"), content)
        else:
            self.refuse(404, f"not in this stand-in: {self.path}")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.requests.append("PUT /storage")
        self.state.large[self.path.rpartition("/")[2]] = content
        self.reply({})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.state.repos:
            self.refuse(409, "You already created this model repo")
            return
        self.state.repos[name] = {".gitattributes": b""}
        if wanted.get("visibility") == "private":
            self.state.private.add(name)
        self.reply({"url": f"http://{self.headers['Host']}/{name}", "name": name})

    def commit(self, name: str, content: bytes) -> None:
        files = self.state.repos[name]
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    self.state.commits.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.state.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        self.reply({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None, "success": True})

    def allowed(self) -> bool:
        self.state.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "Invalid username or password.")
            return False
        for path, (code, message) in self.state.answer.items():
            if path in self.path:
                self.refuse(code, message)
                return False
        return True

    def refuse(self, code: int, message: str, kind: str = "") -> None:
        self.reply({"error": message}, code, {"X-Error-Message": message, **({"X-Error-Code": kind} if kind else {})})

    def reply(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        for name, text in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def hub_server() -> Iterator[HubState]:
    """Serves a hub without repositories; `huggingface_hub` uses it, with the token of its user anna."""
    HubHandler.state = HubState()
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # huggingface_hub uploads large files with an option that its HTTP library has renamed.
        warnings.filterwarnings("ignore", "Use 'content", DeprecationWarning)
        patch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in stores large files as Git LFS does
        patch.setenv("HF_TOKEN", TOKEN)
        yield HubHandler.state
    server.shutdown()
    thread.join()
    server.server_close()
    close_session()
