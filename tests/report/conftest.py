"""A stand-in for the W&B server on loopback: enough of its API for wandb-core to stream a run.

wandb-core asks GraphQL for the viewer, the run to resume and upload addresses, creates the run
with the mutation UpsertBucket, and posts history, summary and the end of the run to
/files/<entity>/<project>/<run id>/file_stream as lines of JSON with offsets.
"""

import contextlib
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class WandbServer:
    """Runs in a thread of the test. `history` has the rows that arrived, by run id and offset."""

    def __init__(self) -> None:
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.summary: dict[str, Any] = {}
        self.operations: list[str] = []
        self.buckets: list[dict[str, Any]] = []  # variables of UpsertBucket
        self.exit_codes: list[int] = []
        self.created = threading.Event()  # the run exists here
        self.sockets: list[socket.socket] = []
        self.awake = threading.Event()  # cleared: requests are taken in and never answered
        self.awake.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.sockets.append(self.connection)

            def do_POST(self) -> None:
                server.awake.wait()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.answer(server.post(self.path, body))

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer({})

            def do_GET(self) -> None:
                self.answer({})

            def answer(self, value: dict[str, Any] | None) -> None:
                text = b"" if value is None else json.dumps(value).encode()
                self.send_response(404 if value is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Die: open connections are cut, later ones are refused."""
        self.http.shutdown()
        self.http.server_close()
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def post(self, path: str, body: bytes) -> dict[str, Any] | None:
        if path == "/graphql":
            request = json.loads(body)
            return {"data": self.graphql(request["query"], request.get("variables") or {})}
        if found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            return self.file_stream(found[1], json.loads(body))
        return None

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        self.operations.append(name[1] if name else query[:40])
        project = {"id": "p", "name": "bench", "entity": {"id": "e", "name": "lab"}}
        if "upsertBucket" in query:
            self.buckets.append(variables)
            self.created.set()
            bucket = {"id": "b", "name": variables["name"], "displayName": "run", "config": "{}"}
            bucket |= {"sweepName": None, "project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        viewer = {"id": "v", "entity": "lab", "username": "lab", "flags": "{}", "email": "l@b.org"}
        viewer |= {"name": "lab", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": None, "model": None, "project": None}

    def file_stream(self, run: str, request: dict[str, Any]) -> dict[str, Any]:
        for name, chunk in (request.get("files") or {}).items():
            rows = [json.loads(line) for line in chunk["content"]]
            if name == "wandb-history.jsonl":
                table = self.history.setdefault(run, {})
                table.update(enumerate(rows, start=chunk["offset"]))
            if name == "wandb-summary.json":
                self.summary = rows[-1]
        if request.get("complete"):
            self.exit_codes.append(request["exitcode"])
        return {"limits": {}}


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    server = WandbServer()
    yield server
    server.awake.set()
    server.stop()
