"""Weights & Biases as a mirror of a run's record.

metrics.jsonl is the source of truth. The mirror may fail: it then says so in one line, and the run
goes on. Three things make that true:

- One daemon thread behind a queue calls W&B: `log` costs the trainer a few microseconds (a direct
  call costs 0.5 to 2 ms), and never waits for a socket.
- W&B's service, wandb-core, is a process in a session of its own: Ctrl-C in a terminal and
  torchrun's SIGTERM to its workers do not reach it. SLURM's SIGTERM reaches every process of a
  step and ends it (it handles the signal itself, so nothing can shield it): the mirror starts it
  once more, and sends again what it may not have written yet.
- wandb-core writes every record to <run directory>/wandb before it sends it, and retries for as
  long as the run lasts; `finish` gives it FINISH_SECONDS more, then says what to type later.
"""

import contextlib
import netrc
import os
import queue
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

INIT_SECONDS = 30.0  # for the server's first answer, before training starts
FINISH_SECONDS = 20.0  # for the upload of what is left, after training has ended
RESEND_SECONDS = 5.0  # lines this old are on disk, with the flush interval of one second below
GRACE_SECONDS = 5.0  # on top: for the thread to notice that W&B gave up

Mode = Literal["auto", "online", "offline", "disabled"]


@dataclass(frozen=True)
class WandbOptions:
    """Where a run is mirrored.

    mode: "auto" is what WANDB_MODE or `wandb offline` say, else online where there are credentials
    and offline where there are none; "disabled" does not even import wandb.
    group: the contest. job_type: the arm. name: the run's identity, as W&B shows it.
    """

    mode: Mode
    project: str
    name: str
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None


class Mirror:
    """One W&B run, fed by a thread of its own; rank 0 only. No method raises.

    directory: the run's; W&B's files go to <directory>/wandb.
    config: nested dicts of plain values. run_id: of the W&B run to continue; None makes a new one.
    say: how to tell the user a line.

    `facts` is what record.json should hold: id, mode, project, files, and url when online.
    """

    def __init__(
        self,
        directory: Path,
        options: WandbOptions,
        config: Mapping[str, Any],
        run_id: str | None,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        self.directory, self.options, self.say = directory, options, say
        self.facts: dict[str, Any] = {"id": run_id or new_id(options.name), "mode": "disabled"}
        self.run: Any = None
        self.first_step = 0
        self.lines: queue.SimpleQueue[tuple[int, Mapping[str, Any]] | None] = queue.SimpleQueue()
        self.recent: deque[tuple[float, tuple[int, Mapping[str, Any]]]] = deque()
        self.config, self.ended = dict(config), False
        self.closing: tuple[str, int, Mapping[str, Any]] = ("failed", 1, {})
        if options.mode == "disabled":
            return
        self._start()
        self.thread = threading.Thread(target=self._feed, name="wandb-mirror", daemon=True)
        if self.run is not None:
            self.thread.start()

    def _start(self) -> None:
        """Begin the W&B run: online if it can be, else offline, else not at all."""
        try:
            mode, why = resolve_mode(self.options.mode, start_service().settings)
            if mode == "online":
                why = self._begin("online", self.config)
                mode = "offline" if why else "online"
            if mode == "offline":
                if trouble := self._begin("offline", self.config):
                    raise RuntimeError(trouble)
                self.say(f"W&B: offline, since {why}; {self._later()}")
            elif mode == "online":
                self.say(f"W&B: {self.run.url}")
        except Exception as error:  # whatever it is, it must not end a training run
            self.say(
                f"W&B: no mirror of this run ({one_line(error)}); metrics.jsonl records everything"
            )

    def _begin(self, mode: Literal["online", "offline"], config: dict[str, Any]) -> str:
        """Call wandb.init; return why that failed, or nothing."""
        import wandb

        options = self.options
        try:
            self.run = wandb.init(
                mode=mode,
                dir=self.directory,
                project=options.project,
                entity=options.entity,
                group=options.group,
                job_type=options.job_type,
                name=options.name,
                config=config,
                id=self.facts["id"],
                resume="allow",
                settings=wandb.Settings(**_quiet_settings(wandb.Settings.model_fields)),
            )
        except Exception as error:
            wandb.teardown(1)  # its service would go on holding this run's id
            start_service()
            return f"the server gave no usable answer ({one_line(error)})"
        # A resumed run logs again what an earlier launch logged after its last checkpoint. W&B
        # would refuse these values, which are the same bits, with a warning each.
        self.first_step = self.run.step if mode == "online" else 0
        files = Path(self.run.settings.sync_dir).resolve().relative_to(self.directory.resolve())
        self.facts |= {"mode": mode, "project": options.project, "files": str(files)}
        if mode == "online":
            self.facts["url"] = self.run.url
        return ""

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Queue one line for W&B's step `step`."""
        if self.run is not None:
            self.lines.put((step, dict(values)))

    def _feed(self) -> None:
        """The thread: send lines until the end, then close the run; start W&B twice at most."""
        for last_try in (False, True):
            try:
                return self._drain()
            except TimeoutError:  # of finish()
                self.say(f"W&B: not all was uploaded in {FINISH_SECONDS:g} s; {self._later()}")
                return
            except Exception as error:  # whatever it is, it must not end a training run
                _abandon()
                if last_try or not self._restart():
                    self.run = None
                    self.say(f"W&B: the mirror ended early ({one_line(error)}); {self._later()}")
                    return

    def _drain(self) -> None:
        """Send what a dead service may have lost, then the queue to its end; then close."""
        for _, (step, values) in list(self.recent):
            self._send(step, values)
        while not self.ended:
            line = self.lines.get()
            if line is None:
                self.ended = True
                break
            self.recent.append((time.monotonic(), line))
            while self.recent[0][0] < time.monotonic() - RESEND_SECONDS:
                self.recent.popleft()
            self._send(*line)
        status, exit_code, summary = self.closing
        self.run.summary.update({"status": status, **summary})
        self.run.finish(exit_code=exit_code)

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        """Log one line, unless the server has that step already; values of None are left out."""
        if step >= self.first_step:
            self.run.log({k: v for k, v in values.items() if v is not None}, step=step)

    def _restart(self) -> bool:
        """Continue the same W&B run with a new service, in another folder of <directory>/wandb."""
        try:
            start_service()
            return not self._begin(self.facts["mode"], self.config)
        except Exception:  # _feed() reports the failure that led here
            return False

    def finish(self, status: str, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Send the summary and close; returns within FINISH_SECONDS + GRACE_SECONDS.

        exit_code: of the trainer; W&B shows 0 as finished and all else as failed.
        """
        if self.run is None:
            return
        self.closing = status, exit_code, {k: v for k, v in summary.items() if v is not None}
        self.lines.put(None)
        self.thread.join(FINISH_SECONDS + GRACE_SECONDS)
        if self.thread.is_alive():
            self.say(f"W&B: no answer from its own service; {self._later()}")

    def _later(self) -> str:
        """What to type to see, and to upload, what all launches of the run left on disk."""
        files = self.directory / "wandb"
        which = "run-* --include-online" if self.facts["mode"] == "online" else "offline-run-*"
        return f"see it with `wandb leet {files}`, upload it with `wandb sync {files}/{which}`"


def start_service(**settings: Any) -> Any:
    """Start wandb-core, or find it running; returns W&B's session. `settings`: more of W&B's."""
    # W&B's telemetry about itself costs a fifth of every log call; a user may turn it on
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.setup(settings=wandb.Settings(silent=True, **settings))


def _abandon() -> None:
    """Forget a service that is gone, or W&B looks for it again at exit."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown(1)


def new_id(name: str) -> str:
    """An id for a new W&B run: its name and six random hex digits, in characters W&B takes."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:100]}-{secrets.token_hex(3)}"


def resolve_mode(mode: Mode, settings: Any) -> tuple[str, str]:
    """The mode to start in, and why when that is offline.

    settings: W&B's, merged by it from its environment variables and settings files.
    """
    if mode == "auto" and settings.mode in ("offline", "dryrun", "disabled"):
        chosen = "disabled" if settings.mode == "disabled" else "offline"
        return chosen, f"WANDB_MODE or its settings file say {settings.mode}"
    if mode == "offline":
        return "offline", "the configuration says so"
    if not has_credentials(settings):
        return "offline", "there are no credentials (`wandb login` makes some)"
    return "online", ""


def has_credentials(settings: Any) -> bool:
    """Whether W&B knows who we are: a key or token in its settings, or the host in a netrc."""
    if settings.api_key or settings.identity_token_file:
        return True
    host = urlsplit(settings.base_url).hostname or ""
    named = os.environ.get("NETRC")
    paths = [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]
    for path in (p.expanduser() for p in paths):
        try:
            found = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if found and found[2]:
            return True
    return False


def _quiet_settings(known: Mapping[str, Any]) -> dict[str, Any]:
    """W&B's settings for a mirror: silent, nothing captured, bounded in time.

    known: the fields of the installed version's Settings; older ones lack finish_timeout.
    """
    settings = {
        "silent": True,  # no banner; our lines say what there is to say
        "console": "off",  # stdout stays the program's own
        "disable_code": True,
        "disable_git": True,  # record.json has the commit; W&B would also upload the diff
        "allow_val_change": True,  # a resumed run may log to another directory
        # samples of the GPU every 15 s could touch the slowest percent of steps, which is a result
        "x_disable_stats": os.environ.get("WANDB__DISABLE_STATS", "true").lower() != "false",
        "x_transaction_log_flush_interval": 1.0,  # seconds of lines that a lost machine takes along
        "init_timeout": INIT_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
    }
    return {name: value for name, value in settings.items() if name in known}


def one_line(error: BaseException) -> str:
    """An exception's kind and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
