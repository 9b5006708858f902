"""A real SLURM cluster of one node, this machine, and runs of Snakemake on it.

It needs Debian's packages slurm-wlm and munge, and root to start their daemons with a slurm.conf in its usual place.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import ROOT
from snakemake_runs import Workflow

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
CONFIGURATION = ["--configfile", str(Path(__file__).with_name("small_visit.yaml"))]
SLURM_CONF = Path("/etc/slurm/slurm.conf")
#: More cores than the machine may have: what is tested is who runs what, not how fast.
SETTINGS = """\
ClusterName=rampflow
SlurmctldHost={host}
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
SlurmdParameters=config_overrides
NodeName={host} CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def responds():
    """Whether a cluster responds and has a node that accepts jobs."""
    state = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True).stdout
    return bool(set(state.split()) & {"idle", "mix", "alloc"})


def absent(reason):
    """Skip the tests, or fail where RAMPFLOW_SLURM requires SLURM."""
    (pytest.fail if os.environ.get("RAMPFLOW_SLURM") == "required" else pytest.skip)(reason)


@contextlib.contextmanager
def running_cluster(folder):
    """A cluster that takes jobs: the machine's own, or one started here with its files in a folder, and stopped at the end.

    Without SLURM the tests are skipped, unless RAMPFLOW_SLURM says that it must be there.
    """
    if not all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged", "sbatch")):
        absent("SLURM is not installed: apt-get install slurm-wlm munge")
    if SLURM_CONF.exists() and responds():
        yield
        return
    if os.geteuid() != 0:
        absent("only root can start SLURM's daemons")
    (folder / "state").mkdir()
    host = socket.gethostname().partition(".")[0]
    before = SLURM_CONF.read_text() if SLURM_CONF.exists() else None
    if before and before.startswith(SETTINGS.partition("\n")[0]):
        before = None  # from tests that were killed: Snakemake would wait for a cluster that no longer exists
    SLURM_CONF.parent.mkdir(parents=True, exist_ok=True)
    SLURM_CONF.write_text(SETTINGS.format(host=host, folder=folder))
    munged = not Path("/run/munge/munge.socket.2").exists()
    try:
        if munged:
            for path in ("/run/munge", "/var/lib/munge", "/var/log/munge"):
                Path(path).mkdir(parents=True, exist_ok=True)
                shutil.chown(path, "munge", "munge")
            subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
        subprocess.run(["slurmctld"], check=True)
        subprocess.run(["slurmd"], check=True)
        deadline = time.monotonic() + 30
        while not responds():
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text() + (folder / "slurmd.log").read_text()
            time.sleep(0.5)
        yield
    finally:
        for daemon in ("slurmd", "slurmctld"):
            stop(folder / f"{daemon}.pid")
        if munged:
            stop(Path("/run/munge/munged.pid"))
        SLURM_CONF.write_text(before) if before else SLURM_CONF.unlink()


def stop(pid_file):
    """End a daemon that was started here."""
    if pid_file.exists():
        os.kill(int(pid_file.read_text()), 15)


class ClusterWorkflow(Workflow):
    """Runs of Snakemake that submit their jobs, with short intervals between queries of the queue.

    Attributes
    ----------
    configuration : list of str
        Options with the configuration; a file in it replaces that of the profile.
    """

    configuration = CONFIGURATION

    def command(self, *arguments):
        """Words of the command line."""
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)),
            *("--workflow-profile", str(PROFILE), "--slurm-status-command", "squeue", "--latency-wait", "5"),
            *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
            *self.configuration,
            *arguments,
        ]

    def submit(self, *arguments):
        """Run Snakemake to its end, with its output as text."""
        return subprocess.run(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        )

    def start(self, *arguments, output):
        """Start Snakemake and wait until it has submitted a job; the process, and the number of the job."""
        process = subprocess.Popen(
            self.command(*arguments), stdout=output.open("w"), stderr=subprocess.STDOUT, env=self.environment
        )
        deadline = time.monotonic() + 120
        while not (submitted := submitted_jobs(output.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
        return process, submitted[0]


def submitted_jobs(text):
    """Numbers of the jobs that a run has submitted, from its output."""
    return [int(number) for number in re.findall(r"has been submitted with SLURM jobid (\d+)", text)]


def slurm(*command):
    """Output of a SLURM command."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def asked(job):
    """Cores, MB and minutes that a job asked for."""
    facts = dict(word.split("=", 1) for word in slurm("scontrol", "show", "job", str(job)).split() if "=" in word)
    hours, minutes, seconds = facts["TimeLimit"].rpartition("-")[2].split(":")
    memory = facts["MinMemoryNode"]
    megabytes = float(memory[:-1]) * {"M": 1, "G": 1024}[memory[-1]]
    return int(facts["NumCPUs"]), megabytes, 60 * int(hours) + int(minutes)
