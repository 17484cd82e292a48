"""A stand-in for the W&B server on loopback: enough of its API for wandb-core to stream a run.

wandb-core asks GraphQL for the viewer, the run to resume and upload addresses, creates the run
with the mutation UpsertBucket, and posts history, summary and the end of the run to
/files/<entity>/<project>/<run id>/file_stream as lines of JSON with offsets.

What was streamed can be read back as wandb.Api does: Runs (with equality and $in in the filter),
RunHistoryKeys, RunParquetHistory (nothing is exported, all data is live) and HistoryPage; and a
report can be saved: GetProjects, ProjectInternalId, CreateProject, upsertView.
"""

import contextlib
import gzip
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Runs in a thread of the test. `history` has the rows that arrived, by run id and offset."""

    def __init__(self) -> None:
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.summary: dict[str, Any] = {}
        self.operations: list[str] = []
        self.buckets: list[dict[str, Any]] = []  # variables of UpsertBucket
        self.exit_codes: list[int] = []
        self.runs: dict[str, dict[str, Any]] = {}  # what the Runs query tells of them, by run id
        self.views: list[dict[str, Any]] = []  # variables of upsertView: saved reports
        self.projects = ["bench"]  # of the entity lab
        self.page_size = 50  # of Runs
        self.refuses_keys = False  # credentials are not accepted
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
            self.upsert_run(variables)
            bucket = {"id": "b", "name": variables["name"], "displayName": "run", "config": "{}"}
            bucket |= {"sweepName": None, "project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        if answer := self.read_back(query, variables) or self.save_report(query, variables):
            return answer
        viewer = {"id": "v", "entity": "lab", "username": "lab", "flags": "{}", "email": "l@b.org"}
        viewer |= {"name": "lab", "teams": {"edges": []}}
        return {
            "viewer": None if self.refuses_keys else viewer,
            "serverInfo": None,
            "model": None,
            "project": None,
        }

    def upsert_run(self, variables: dict[str, Any]) -> None:
        """The mutation UpsertBucket; a resumed run comes again under its name."""
        run = self.runs.setdefault(variables["name"], {"summaryMetrics": "{}"})
        run |= {"id": variables["name"], "name": variables["name"], "state": "running"}
        names = {"displayName": "displayName", "group": "groupName", "jobType": "jobType"}
        for ours, theirs in (names | {"config": "config"}).items():
            run[ours] = variables.get(theirs) or run.get(ours)  # later ones leave out what stays
        run |= {"tags": [], "sweepName": None, "commit": None, "readOnly": False, "projectId": "1"}
        run |= {"createdAt": f"2026-01-01T00:00:{len(self.runs):02}Z", "heartbeatAt": None}
        run |= {
            "description": None,
            "notes": None,
            "systemMetrics": "{}",
            "user": {"username": "lab"},
        }

    def read_back(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """Queries of wandb.Api, and of wandb-core on its behalf, about runs of a project."""
        operation = self.operations[-1]
        if operation not in ("Runs", "Run", "RunHistoryKeys", "RunParquetHistory", "HistoryPage"):
            return None
        if (variables["entity"], variables["project"]) not in {("lab", p) for p in self.projects}:
            return {"project": None}
        if operation == "Runs":
            return {"project": self.page_of_runs(variables)}
        run = variables.get("name") or variables.get("runName") or variables["run"]
        steps = [row["_step"] for row in self.history.get(run, {}).values()]
        if operation == "Run":
            return {"project": {"run": self.runs[run]}}
        if operation == "RunHistoryKeys":
            return {"project": {"run": {"historyKeys": {"lastStep": max(steps, default=-1)}}}}
        if operation == "RunParquetHistory":
            live = {"parquetUrls": [], "liveData": [{"_step": s} for s in sorted(steps)[:1]]}
            return {"project": {"run": {"parquetHistory": live}}}
        wanted = range(variables["minStep"], variables["maxStep"])
        rows = [row for row in self.history[run].values() if row["_step"] in wanted]
        return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}

    def page_of_runs(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Runs that fit the filter, from the cursor on."""
        found = [
            run
            for run in self.runs.values()
            if all(fits(run, *rule) for rule in json.loads(variables["filters"] or "{}").items())
        ]
        start = int(variables.get("cursor") or 0)
        end = min(start + min(variables["perPage"], self.page_size), len(found))
        edges = [{"node": run, "cursor": str(end)} for run in found[start:end]]
        page = {"endCursor": str(end), "hasNextPage": end < len(found)}
        return {
            "internalId": "1",
            "runCount": len(found),
            "readOnly": False,
            "runs": {"edges": edges, "pageInfo": page},
        }

    def save_report(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """What wandb-workspaces asks when it saves a report."""
        operation = self.operations[-1]
        if operation == "ProjectInternalId":
            known = variables["projectName"] in self.projects
            return {"project": {"id": "p", "internalId": "1"} if known else None}
        if operation == "GetProjects":
            facts = {"__typename": "Project", "entityName": variables["entity"], "user": None}
            facts |= {"createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False}
            edges = [{"node": facts | {"id": name, "name": name}} for name in self.projects]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": edges}}
        if operation == "upsertView":
            self.views.append(variables)
            view = {"id": f"VmlldzoxMjM{len(self.views)}", "type": "runs", "name": "report"}
            view |= {key: variables[key] for key in ("displayName", "description", "spec")}
            project = {"id": "p", "name": variables["projectName"], "entityName": "lab"}
            view |= {"project": project, "updatedAt": "2026-01-01T00:00:00Z"}
            return {"upsertView": {"view": view, "inserted": True}}
        return None

    def file_stream(self, run: str, request: dict[str, Any]) -> dict[str, Any]:
        for name, chunk in (request.get("files") or {}).items():
            rows = [json.loads(line) for line in chunk["content"]]
            if name == "wandb-history.jsonl":
                table = self.history.setdefault(run, {})
                table.update(enumerate(rows, start=chunk["offset"]))
            if name == "wandb-summary.json":
                self.summary = rows[-1]
                self.runs.setdefault(run, {})["summaryMetrics"] = json.dumps(rows[-1])
        if request.get("complete"):
            self.exit_codes.append(request["exitcode"])
            self.runs[run]["state"] = "failed" if request["exitcode"] else "finished"
        return {"limits": {}}


def fits(run: dict[str, Any], field: str, rule: Any) -> bool:
    """One entry of a filter: equality, or {"$in": [values]}; others are not known here."""
    if not isinstance(rule, dict):
        return run[field] == rule
    assert list(rule) == ["$in"], rule
    return run[field] in rule["$in"]
