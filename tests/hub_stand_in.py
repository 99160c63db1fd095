"""The Hugging Face hub's HTTP interface as far as huggingface_hub's client asks it, in memory: python hub_stand_in.py.

Prints its port. ``acme/gated`` is there and gated. Tokens: ``hf_right`` may do everything, others nothing. Tests reach
behind it by PUT and DELETE of ``/behind/ORG/NAME/PATH``, which change the newest commit of ``main``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "Bearer hf_right"  # noqa: S105 - of this stand-in
Tree = dict[str, bytes]
REPOS: dict[str, dict[str, list[Tree]]] = {"acme/gated": {"main": [{}]}}
"""By name and branch, the commits."""
LARGE: dict[str, bytes] = {}
"""Uploaded by LFS, by SHA-256."""
BIG = (".safetensors", ".onnx", ".pt2")
ROUTES: list[tuple[str, str, str]] = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<rev>.+)", "branch"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<rev>.+)", "preupload"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<rev>.+)", "commit"),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/large/(?P<path>\w+)", "large"),
    ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<rev>[^/?]+)", "tree"),
    ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<rev>[^/?]+)", "info"),
    ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)", "info"),
    ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
    ("PUT", r"/behind/(?P<repo>[^/]+/[^/]+)/(?P<path>.+)", "behind"),
    ("DELETE", r"/behind/(?P<repo>[^/]+/[^/]+)/(?P<path>.+)", "behind"),
]


def sha_of(tree: Tree) -> str:
    listed = [(path, hashlib.sha256(data).hexdigest()) for path, data in sorted(tree.items())]
    return hashlib.sha1(repr(listed).encode()).hexdigest()  # noqa: S324 - a name, as git's


class Refused(Exception):  # noqa: N818 - control flow
    """Answered with a status and the hub's own code for it."""


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, name in ROUTES:
            found = re.fullmatch(pattern, self.path.partition("?")[0])
            if found and verb == method:
                try:
                    return getattr(self, f"do_{name}")(**found.groupdict())
                except Refused as refused:
                    status, code = refused.args
                    return self.answer({"error": code}, status, {"X-Error-Code": code})
        return self.answer({"error": self.path}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def tree_of(self, repo: str, rev: str = "main") -> Tree:
        if repo not in REPOS:
            raise Refused(401 if self.headers.get("Authorization") != TOKEN else 404, "RepoNotFound")
        if repo == "acme/gated":
            raise Refused(403, "GatedRepo")
        commits = {sha_of(tree): tree for branch in REPOS[repo].values() for tree in branch}
        tree = REPOS[repo][rev][-1] if rev in REPOS[repo] else commits.get(rev)
        if tree is None:
            raise Refused(404, "RevisionNotFound")
        return tree

    def may_write(self) -> None:
        if self.headers.get("Authorization") != TOKEN:
            raise Refused(401, "Unauthorized")

    def do_create(self) -> None:
        self.may_write()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in REPOS else 200
        REPOS.setdefault(name, {"main": [{".gitattributes": b"*.onnx filter=lfs\n"}]})
        self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name}, status)

    def do_validate(self) -> None:
        known = "license: mit" in json.loads(self.body)["content"] or "license:" not in self.body.decode()
        errors = [] if known else [{"message": '"license" must be one of [mit, ...]'}]
        self.answer({"errors": errors, "warnings": []}, 200 if known else 400)

    def do_branch(self, repo: str, rev: str) -> None:
        self.may_write()
        status = 409 if rev in REPOS[repo] else 200
        REPOS[repo].setdefault(rev, [self.tree_of(repo)])
        self.answer({}, status)

    def do_preupload(self, repo: str, rev: str) -> None:
        self.may_write()
        self.tree_of(repo, rev)
        modes = [(each["path"], "lfs" if each["path"].endswith(BIG) else "regular") for each in self.asked("files")]
        self.answer({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]})

    def asked(self, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.body)[key]
        return found

    def do_batch(self, repo: str) -> None:
        self.may_write()
        at = f"http://{self.headers['Host']}/large"
        objects = [
            {**each, **({} if each["oid"] in LARGE else {"actions": {"upload": {"href": f"{at}/{each['oid']}"}}})}
            for each in self.asked("objects")
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def do_large(self, path: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == path
        LARGE[path] = self.body
        self.answer(b"")

    def do_commit(self, repo: str, rev: str) -> None:
        self.may_write()
        tree = dict(self.tree_of(repo, rev))
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                tree[value["path"]] = LARGE[value["oid"]]
            elif operation["key"] == "deletedFile":
                del tree[value["path"]]
        REPOS[repo][rev].append(tree)
        self.answer({"commitUrl": f"http://{self.headers['Host']}/{repo}", "commitOid": sha_of(tree)})

    def do_tree(self, repo: str, rev: str) -> None:
        rows = self.tree_of(repo, rev).items()
        self.answer([{"type": "file", "path": path, "size": len(data), "oid": "0" * 40} for path, data in rows])

    def do_info(self, repo: str, rev: str = "main") -> None:
        tree = self.tree_of(repo, rev)
        self.answer({"id": repo, "sha": sha_of(tree), "siblings": [{"rfilename": path} for path in tree]})

    def do_resolve(self, repo: str, rev: str, path: str) -> None:
        tree = self.tree_of(repo, rev)
        if path not in tree:
            raise Refused(404, "EntryNotFound")
        digest = f'"{hashlib.sha256(tree[path]).hexdigest()}"'
        self.answer(tree[path], headers={"ETag": digest, "X-Repo-Commit": sha_of(tree)})

    def do_behind(self, repo: str, path: str) -> None:
        tree = dict(self.tree_of(repo))
        tree.pop(path, None)
        REPOS[repo]["main"].append(tree | ({path: self.body} if self.command == "PUT" else {}))
        self.answer({})


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)  # noqa: T201 - for who started it
    server.serve_forever()
