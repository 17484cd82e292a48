"""A real SLURM cluster of two virtual nodes on this machine, for tests: Debian's own daemons.

Everything lives in one temporary folder and on free ports: a private munged, slurmctld, and two
slurmd that both are this host under the names n1 and n2. No GPUs, no database, no cgroups.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.jobs import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
NODES = ("n1", "n2")
# Where a default is minutes, a test needs seconds: the scheduler's and the backfill's period, and
# cred_expire, which is how long a requeued job waits before it may start again (at least 5).
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MinJobAge=3600
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class NoCluster(RuntimeError):  # noqa: N818 - a reason to skip, not a fault
    """Why SLURM cannot be started here."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; commands talk to it through the environment variable SLURM_CONF."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, for this cluster."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """Output of a SLURM command that must succeed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What slurmctld knows of a job (or an array's task, as 12_3): JobState, Restarts, ..."""
        words = self.run("scontrol", "show", "job", "--oneliner", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, *states: str, timeout: float = 240) -> dict[str, str]:
        """The job as soon as it is in one of these states (none: as soon as it has ended)."""
        ends = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_until(
            lambda: self.job(number)["JobState"] in ends,
            timeout,
            lambda: self.log(number),
            pause=0.1,
        )
        return self.job(number)

    def log(self, number: str) -> str:
        """The job's state and output, for a failed assertion."""
        job = self.job(number)
        output = Path(job.get("StdOut", ""))
        return f"{job}\n{output.read_text() if output.is_file() else 'no output'}"


def require() -> None:
    """Raises NoCluster with the reason where SLURM cannot run."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        raise NoCluster(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        raise NoCluster("slurmd starts jobs as root only")


@contextlib.contextmanager
def start() -> Iterator[Cluster]:
    """A cluster until the end of the block; nothing of it is left afterwards."""
    require()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has 108 characters
    cluster, daemons = Cluster(folder), []
    try:
        daemons += _start(cluster)
        yield cluster
    finally:
        _stop(cluster, daemons)
        shutil.rmtree(folder, ignore_errors=True)


def _start(cluster: Cluster) -> list[subprocess.Popen[bytes]]:
    folder = cluster.folder
    folder.chmod(0o755)  # munged refuses a socket that others cannot reach
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(folder=folder, host=host, ports=_free_ports(3))
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # else /sys/fs/cgroup is wanted
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    files |= {"seed-file": folder / "munge.seed"}
    munged = ["munged", "--foreground", *(f"--{name}={path}" for name, path in files.items())]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        daemons.append(_daemon(cluster, munged))
        _await(cluster, daemons, ["munge", "-n", "-S", str(folder / "munge.socket")], "")
        daemons.append(_daemon(cluster, ["slurmctld", "-D"]))
        daemons += [_daemon(cluster, ["slurmd", "-D", "-N", node]) for node in NODES]
        _await(cluster, daemons, ["sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D"], "2")
    except BaseException:
        _stop(cluster, daemons)
        raise
    return daemons


def _daemon(cluster: Cluster, command: list[str]) -> subprocess.Popen[bytes]:
    """In the foreground of a session of its own; the kernel ends it if this process is killed."""
    with (cluster.folder / "daemons.log").open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _await(
    cluster: Cluster, daemons: list[subprocess.Popen[bytes]], command: list[str], answer: str
) -> None:
    deadline = time.monotonic() + 20
    while True:
        done = subprocess.run(
            command,
            env=cluster.environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if done.returncode == 0 and done.stdout.strip().endswith(answer):
            return
        dead = [daemon.args for daemon in daemons if daemon.poll() is not None]
        if dead or time.monotonic() > deadline:
            last = (cluster.folder / "daemons.log").read_text()[-500:]
            raise NoCluster(f"SLURM did not start: {dead or done.stdout + done.stderr}; {last}")
        time.sleep(0.05)


def _stop(cluster: Cluster, daemons: list[subprocess.Popen[bytes]]) -> None:
    for daemon in reversed(daemons):
        daemon.kill()
        daemon.wait(5)
    while processes := cluster_processes(cluster):  # jobs, and slurmstepd, which outlives slurmd
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, 9)


def cluster_processes(cluster: Cluster) -> list[int]:
    """Living processes that this cluster's daemons started: they inherit its SLURM_CONF."""
    mark = f"SLURM_CONF={cluster.folder}/".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
