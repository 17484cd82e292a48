"""Nothing of a run is left after a fault; two machines as network namespaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import ROOT

# multinode.sh takes python3 off the path where the checkout has no .venv of its own.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line names the folder: agents, ranks, W&B's service."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_orphans(tmp_path: Path) -> Iterator[None]:
    """After each fault every process of the run is gone, by itself, within 20 s."""
    yield
    end = time.monotonic() + 20
    while (left := processes_of(tmp_path)) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"processes {left} outlived the run"


def launched(*words: str) -> subprocess.Popen[str]:
    """`python -m launch WORDS`, in its own session."""
    return subprocess.Popen(
        [sys.executable, "-m", "launch", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class Nodes:
    """Two machines: network namespaces joined by a cable, with host names of their own."""

    names = ("alpha", "beta")

    def __init__(self, folder: Path) -> None:
        self.folder, self.spaces = folder, [f"gpt{os.getpid()}{name}" for name in self.names]
        cables = [f"v{os.getpid()}{name[0]}" for name in self.names]
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        lines = ["127.0.0.1 localhost"]
        for i, (space, cable) in enumerate(zip(self.spaces, cables, strict=True)):
            ip("netns", "add", space)
            ip("link", "set", cable, "netns", space, "name", "eth7")
            ip("-n", space, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth7")
            for device in ("lo", "eth7"):
                ip("-n", space, "link", "set", device, "up")
            lines.append(f"127.0.1.1 {self.names[i]}")  # as Debian has it: of no use to peers
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        (folder / "resolv.conf").write_text("")

    def start(
        self, node: int, arguments: list[str], root: Path = ROOT, **settings: object
    ) -> subprocess.Popen[str]:
        """launch/multinode.sh on one of them, which is node 0 or 1 unless the settings differ."""
        given: dict[str, object] = {"MASTER_ADDR": "10.77.0.1", "NNODES": 2, "NODE_RANK": node}
        given |= {"NPROC_PER_NODE": 1, "PATH": PATH, **settings}
        inside = (
            f"mount --bind {self.folder}/hosts /etc/hosts && "
            f"mount --bind {self.folder}/resolv.conf /etc/resolv.conf && "
            f'hostname {self.names[node]} && exec "$@"'
        )
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.spaces[node]}", "unshare", "--mount", "--uts",
             "bash", "-c", inside, "_", str(root / "launch/multinode.sh"), *arguments],
            env=os.environ | {k: str(v) for k, v in given.items()},
            stdout=(self.folder / f"{self.names[node]}.out").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    def output(self, node: int) -> str:
        """What it has printed so far."""
        return (self.folder / f"{self.names[node]}.out").read_text()

    def cut(self) -> None:
        """Pull the cable out."""
        ip("-n", self.spaces[1], "link", "set", "eth7", "down")

    def close(self) -> None:
        """Take both away."""
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Skips where network namespaces cannot be made."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        pytest.skip("two machines here are network namespaces: needs root, iproute2, util-linux")
    try:
        both = Nodes(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")
    yield both
    both.close()


@pytest.fixture
def host() -> str:
    """The name under which this machine's ranks know it."""
    return socket.gethostname()
