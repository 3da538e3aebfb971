"""A server on this machine that answers as the Hugging Face Hub does, to its own client."""

import base64
import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants as constants


@dataclass
class Repository:
    """Revisions by name, "main" among them: files by path. ``gated``: access on request."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    private: bool = False
    gated: bool = False

    def commit(self, revision: str) -> str:
        content = sorted((name, hashlib.sha1(b).hexdigest()) for name, b in self.files(revision))
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def files(self, revision: str) -> list[tuple[str, bytes]]:
        return sorted(self.revisions[revision].items())


class Hub(http.server.ThreadingHTTPServer):
    """A hub with planted faults.

    Attributes:
        repositories: by "user/name".
        tokens: "read" or "write" by token.
        asked: method, path and Authorization of each request.
        starts: where each transfer of a file began.
        ends: path -> how many bytes each next answer sends before the line breaks.
        status: path -> the status of each answer.
        echo: whether errors repeat the token, as a careless server might.
        lfs: whether weights are uploaded apart from the commit.
        refuses: what it says against each card; "" = it takes them.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.tokens, self.asked, self.starts, self.ends, self.status = {}, [], [], {}, {}
        self.echo, self.lfs, self.refuses, self.stored = False, False, "", {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._note(path)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*found.groups())
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            if repository := self._readable(found[1], found[2]):
                files = repository.files(found[2])
                return self._json(
                    [{"type": "file", "path": n, "size": len(b), "oid": "0"} for n, b in files]
                )
            return None
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            revision = found[2] or "main"
            if repository := self._readable(found[1], revision):
                files = [{"rfilename": name} for name, _ in repository.files(revision)]
                about = {"id": found[1], "sha": repository.commit(revision), "siblings": files}
                return self._json(about | {"private": repository.private})
            return None
        return self._fail(404, "", "nothing here")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._note(path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            errors = [{"message": self.server.refuses}] * bool(self.server.refuses)
            return self._json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if self._right() != "write":
            if self._right() is None:
                return self._fail(401, "", "Invalid username or password.")
            return self._fail(403, "", "You don't have the rights to create a model under anna")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            made = {"url": f"{self.server.url}/{name}", "name": name, "id": name}
            if name in self.server.repositories:
                return self._json(made | {"error": "You already created this model repo"}, 409)
            private = asked.get("visibility") == "private" or asked.get("private", False)
            self.server.repositories[name] = Repository(private=bool(private))
            return self._json(made)
        if path in self.server.status:
            return self._fail(self.server.status[path], "", "out of order")
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            upload = {"upload": {"href": f"{self.server.url}/store", "header": {}}}
            objects = [
                {**o, "actions": upload if o["oid"] not in self.server.stored else None}
                for o in json.loads(body)["objects"]
            ]
            return self._json({"objects": objects, "transfer": "basic"})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if self.server.lfs and "safe" in f["path"] else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            repository = self.server.repositories[found[1]]
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    repository.revisions["main"][value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    repository.revisions["main"][value["path"]] = self.server.stored[value["oid"]]
            commit = repository.commit("main")
            page = f"{self.server.url}/{found[1]}/commit/{commit}"
            return self._json({"commitUrl": page, "commitOid": commit, "success": True})
        return self._fail(404, "", "nothing here")

    def do_PUT(self) -> None:
        self._note(self.path)
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.ends.get("/store"):
            self.server.ends["/store"].pop()
            return self._fail(500, "", "the store is full")
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        return self._json({})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if not (repository := self._readable(name, revision)):
            return None
        data = repository.revisions[revision].get(file)
        if data is None:
            return self._fail(404, "EntryNotFound", "Entry not found")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(data))) if asked else (0, len(data))
        part = data[first : last + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        if asked:
            end = first + len(part) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(data)}")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.commit(revision))
        self.end_headers()
        if self.command == "GET":
            whole = not asked or not asked[2]  # a look at the header is never broken
            self.server.starts += [first] * whole
            ends = (whole and self.server.ends.get(self.path)) or [None]
            self.wfile.write(part[: ends.pop(0)])
        return None

    def _readable(self, name: str, revision: str) -> Repository | None:
        """The repository; None if the request was answered with an error."""
        repository, right = self.server.repositories.get(name), self._right()
        if right is None and self.headers.get("Authorization"):
            self._fail(401, "", "Invalid credentials in Authorization header")
        elif name in self.server.status:
            self._fail(self.server.status[name], "", "out of order")
        elif not repository or (repository.private and not right):
            self._fail(404 if right else 401, "RepoNotFound", "Repository not found")
        elif repository.gated:
            self._fail(403, "GatedRepo", "Access to model is restricted")
        elif revision not in repository.revisions:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _right(self) -> str | None:
        return self.server.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _note(self, path: str) -> None:
        self.server.asked.append((self.command, path, self.headers.get("Authorization")))

    def _json(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, code: str, message: str) -> None:
        if self.server.echo:
            message += f" for {self.headers.get('Authorization')}"
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(monkeypatch, cache):
    """A hub that the client of this process talks to, with an empty cache and nobody logged in."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    template = "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + template,
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,  # the hub's own store, which is no part of this server
    }.items():
        monkeypatch.setattr(constants, name, value, raising=False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
