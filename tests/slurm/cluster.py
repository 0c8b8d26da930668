"""A Slurm cluster of one node on this machine: munge, controller and node daemon, two GPUs that are names alone.

It needs root, and /etc/slurm/slurm.conf for itself, since job steps read no other; what it puts there it takes away.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "setpriv")
CONFIGURATION = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    if lacking := [name for name in PROGRAMS if not shutil.which(name, path=path)]:
        packages = "slurmctld slurmd slurm-client munge"
        return f"{', '.join(lacking)} is missing: apt-get install --no-install-recommends {packages}"
    if os.geteuid() != 0:
        return "a Slurm of one's own can be started by root only"
    for name in FILES:
        file = CONFIGURATION / name
        # A link to nowhere is what a cluster of these tests leaves that was killed.
        if file.exists() and not _is_ours(file):
            return f"{file} is there: this machine has a Slurm already"
    return None


def _is_ours(file: Path) -> bool:
    return file.is_symlink() and (file.readlink().parent / "icl-test-cluster").exists()


class Cluster:
    """Daemons whose files are all in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        for name in ("state", "spool", "log", "run"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "icl-test-cluster").touch()
        host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(host=host, folder=self.folder))
        (self.folder / "gres.conf").write_text(f"NodeName={host} {GPUS}\n")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        CONFIGURATION.mkdir(exist_ok=True)
        for name in FILES:
            (CONFIGURATION / name).unlink(missing_ok=True)
            (CONFIGURATION / name).symlink_to(self.folder / name)
        files = ("key", "munge.key"), ("socket", "run/munge"), ("pid", "run/munged.pid"), ("log", "log/munged.log")
        options = [f"--{kind}{'' if kind == 'socket' else '-file'}={self.folder / name}" for kind, name in files]
        self._run("munged", "--force", "--foreground", *options, f"--seed-file={self.folder}/run/munged.seed")
        self._until("munged", lambda: (self.folder / "run/munge").exists(), "munged opens its socket")
        self.start_controller()
        self._run("slurmd", "-D")
        self._until("slurmd", lambda: "idle" in self._answer("sinfo", "-h", "-o", "%T"), "the node is idle")

    def start_controller(self) -> None:
        self._run("slurmctld", "-D")
        self._until("slurmctld", lambda: "UP" in self._answer("scontrol", "ping"), "the controller answers")

    def stop_controller(self) -> None:
        """It writes down its jobs; a crash would lose those of the last seconds, which is Slurm's own affair."""
        self.daemons["slurmctld"].terminate()
        self.daemons["slurmctld"].wait(60)

    def jobs(self) -> list[dict[str, str]]:
        """Every job that the controller remembers, as `scontrol show job` tells it."""
        lines = self._answer("scontrol", "-o", "show", "job").splitlines()
        return [dict(part.partition("=")[::2] for part in line.split() if "=" in part) for line in lines]

    def cancel(self, job: str) -> None:
        subprocess.run(["scancel", job], check=True)

    def stop(self) -> None:
        """Ends jobs and daemons, and takes the configuration away; nothing of it stays."""
        if "slurmd" in self.daemons:
            # Steps outlive daemons; only a controller ends them.
            if self.daemons["slurmctld"].poll() is not None:
                self.start_controller()
            subprocess.run(["scancel", "--full", "--user", "root"], check=True)
            self._until("slurmctld", lambda: not self._answer("squeue", "-h"), "no job is left")
        for name in ("slurmd", "slurmctld", "munged"):
            if (daemon := self.daemons.get(name)) and daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        for name in FILES:
            if _is_ours(CONFIGURATION / name):
                (CONFIGURATION / name).unlink()

    def _run(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        # A daemon ends when the tests do, however they do.
        command = ["setpriv", "--pdeathsig", "KILL", path, *arguments]
        with (self.folder / f"log/{program}.out").open("ab") as log:
            self.daemons[program] = subprocess.Popen(command, stdout=log, stderr=log)

    def _until(self, program: str, condition: Callable[[], bool], what: str) -> None:
        """As `until`, for a daemon that has been started and must stay."""

        def holds() -> bool:
            if self.daemons[program].poll() is not None:
                raise RuntimeError((self.folder / f"log/{program}.out").read_text())
            return condition()

        until(holds, what)

    def _answer(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Waits for what must come; a limit and no measurement."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"waited {seconds} s until {what}")
        time.sleep(0.05)


GPUS = "Name=gpu Type=fake File=/dev/tty[0-1] Flags=nvidia_gpu_env"
SLURM_CONF = """
ClusterName=icltest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge
CryptoType=crypto/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=600
KillWait=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=2
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 Gres=gpu:fake:2 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=02:00:00 State=UP
"""
