"""A real Slurm of two nodes on this machine, in a temporary folder, with ports, key and socket of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

os.environ["PATH"] += os.pathsep + "/usr/sbin"  # where Debian has Slurm's and munge's daemons
TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "scancel")
CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MinJobAge=600
SchedulerParameters=batch_sched_delay=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=2 RealMemory=1000000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=2 RealMemory=1000000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


def why_not() -> str:
    """Return why there can be no cluster here; empty if there can be one."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} (Debian: slurm-wlm, munge)"
    return "" if find_spec("submitit") else "submitit is not installed"


class Cluster:
    """A cluster that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.conf)}

    def call(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        env = os.environ | self.environment
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self.call("slurmd", "-N", name, "-f", str(self.conf))

    def kill_node(self, name: str) -> int:
        """Kill whatever runs on a node, at once, as a power cut does; returns the number of jobs it had."""
        jobs = self.call("squeue", "--noheader", f"--nodelist={name}", "--states=RUNNING", "--format=%A").split()
        for number in self._processes(lambda command, env: f"SLURMD_NODENAME={name}" in env
                                      or (command[0].startswith("slurmstepd") and _job_of(command[0]) in jobs)
                                      or ("slurmd" in command[0] and name in command)):  # fmt: skip
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return len(jobs)

    def stop(self) -> None:
        """End all daemons and jobs, whatever state they are in."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.call("scancel", f"--user={getpass.getuser()}")
        for number in self._processes(lambda command, env: True):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        pid = self.folder / "munged.pid"
        if pid.is_file():
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(pid.read_text()), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self, wanted: Callable[[list[str], list[str]], bool]) -> list[int]:
        """Return the daemons and jobs of this cluster that are wanted, by their command and environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                env = (path / "environ").read_text(errors="replace").split("\0")
                command = (path / "cmdline").read_text(errors="replace").split("\0")
                ours = f"SLURM_CONF={self.conf}" in env or str(self.conf) in command
                if ours and int(path.name) != os.getpid() and wanted(command, env) and _of_slurm(command, env):
                    found.append(int(path.name))
        return found


def _of_slurm(command: list[str], env: list[str]) -> bool:
    """Return whether a process is a daemon, or was started by one; a command that only asks Slurm is neither."""
    daemon = any(word in command[0] for word in ("slurmctld", "slurmd", "slurmstepd"))
    return daemon or any(entry.startswith("SLURM_JOB_ID=") for entry in env)


def _job_of(title: str) -> str:
    """Return the job of ``slurmstepd: [17.0]``."""
    return title.partition("[")[2].partition(".")[0].partition("]")[0]


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster, and end it."""
    made = Cluster(
        Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    )  # short: the path of a socket has 108 characters
    try:
        _configure(made)
        made.call(
            "munged", "--force", "--num-threads=2",
            *(f"--{name}={made.folder}/munge.{end}" for name, end in (
                ("key-file", "key"), ("socket", "sock"), ("log-file", "log"), ("seed-file", "seed"))),
            f"--pid-file={made.folder}/munged.pid",
        )  # fmt: skip
        made.call("slurmctld", "-c", "-f", str(made.conf))
        for name in ("n1", "n2"):
            made.start_node(name)
        until(lambda: made.call("sinfo", "--noheader", "--partition=main", "--format=%D%t").split() == ["2idle"], 60)
        yield made
    finally:
        made.stop()


def _configure(made: Cluster) -> None:
    ports = [socket.socket() for _ in range(3)]
    for each in ports:
        each.bind(("127.0.0.1", 0))
    controller, n1, n2 = (each.getsockname()[1] for each in ports)
    for each in ports:
        each.close()
    facts = {"host": socket.gethostname(), "user": getpass.getuser(), "folder": made.folder}
    made.conf.write_text(CONFIG.format(controller=controller, n1=n1, n2=n2, **facts))
    (made.folder / "state").mkdir()
    key = made.folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)


def until(true: Callable[[], bool], seconds: float = 400.0) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: it is not within the time.
    """
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.2)
