"""A real Slurm of several virtual nodes on this machine, for as long as one test needs it.

Everything is kept in one directory; ports are claimed, so that several labs live beside each other. By hand:
python3 tests/slurm/lab.py [--nodes N] COMMAND... runs a command in a lab and takes the lab down.
"""

import argparse
import ctypes
import fcntl
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 60  # Bound of every wait; reaching it is a failure.
PORTS = range(17000, 29500)  # Below those that the system gives to outgoing connections.
UP_STATES = {"idle", "mixed", "allocated", "completing", "draining", "drained", "reserved", "planned"}
PR_SET_PDEATHSIG = 1

CONFIGURATION = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={directory}/munge.sock
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmdLogFile={directory}/log/slurmd.%n.log
LogTimeFormat=iso8601_ms
MailProg=/bin/true
PlugStackConfig={directory}/plugstack.conf
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_of_cpu}
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PrologFlags=Alloc,DeferBatch
PrologEpilogTimeout=30
BatchStartTimeout=30
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2,bf_resolution=1,nohold_on_prolog_fail
PriorityType=priority/basic
MinJobAge=120
KillWait=5
CompleteWait=0
MessageTimeout=10
SlurmctldTimeout=30
SlurmdTimeout=60
InactiveLimit=0
Waittime=0
ReturnToService=2
UnkillableStepTimeout=60
"""


def wait_until(condition, what, patience_s=PATIENCE_S):
    """Polls for something that sends no event to this process; returns what the condition returned."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {patience_s} s: {what() if callable(what) else what}")


def state_and_start(pid):
    """A process's state letter and start time; None when it is gone. Pids are used again, start times are not."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
    except OSError:
        return None
    return fields[0], fields[19]


def alive(pid):
    found = state_and_start(pid)
    return found is not None and found[0] not in "ZX"


def processes(text):
    """Live processes, this one aside, whose command line or environment names the text."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            about = b"".join(pathlib.Path(f"/proc/{entry}/{part}").read_bytes() for part in ("cmdline", "environ"))
        except OSError:
            continue
        if text.encode() in about and alive(int(entry)):
            found.append(int(entry))
    return found


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Ports:
    """Port numbers that no other lab of this machine takes and nobody listens on; close() gives them back."""

    def __init__(self, count):
        self.locks = []
        self.numbers = []
        folder = pathlib.Path(tempfile.gettempdir()) / f"sublet-slurm-ports-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for number in PORTS:
            if len(self.numbers) == count:
                return
            lock = open(folder / str(number), "w", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("", number))
            except OSError:
                lock.close()
                continue
            self.locks.append(lock)
            self.numbers.append(number)
        raise AssertionError(f"no {count} free ports")

    def close(self):
        for lock in self.locks:
            lock.close()


class Lab:
    """slurmctld, a slurmd for each of the nodes n1, n2, ..., munged; all ended by close().

    `cpus` need not exist. `gpus` are device files that lead nowhere. `configuration` are lines of slurm.conf, in which
    {directory} is the lab's: a key given there replaces the lab's own. `before_start` puts in place what they name. The lab's processes die with the thread that
    started them.
    """

    def __init__(self, nodes=3, cpus=4, memory_mib=4000, gpus=0, configuration="", before_start=None):
        for program in ("slurmctld", "slurmd", "munged", "sbatch"):
            if not shutil.which(program, path=self.path()):
                raise AssertionError(f"{program} is missing: scripts/setup installs it")
        self.directory = tempfile.mkdtemp(prefix="sublet-slurm-")
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.memory_mib = memory_mib
        self.gpus = gpus
        self.extra = configuration
        self.daemons = {}
        self.ports = Ports(nodes + 1)
        self.conf = f"{self.directory}/slurm.conf"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        self.env.update(SLURM_CONF=self.conf, PATH=self.path())
        try:
            self.configure()
            if before_start:
                before_start(self.directory)
            self.start()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def path():
        return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def configure(self):
        directory = pathlib.Path(self.directory)
        directory.chmod(0o755)
        for name in ("state", "spool", "log", "dev"):
            (directory / name).mkdir()
        (directory / "munge.key").write_bytes(os.urandom(128))
        (directory / "munge.key").chmod(0o400)
        (directory / "cgroup.conf").write_text("ConstrainCores=no\nConstrainDevices=no\nConstrainRAMSpace=no\n")
        text = CONFIGURATION.format(directory=directory, host=socket.gethostname().split(".")[0], ports=self.ports.numbers,
                                    user=subprocess.check_output(["id", "-un"], text=True).strip(),
                                    memory_of_cpu=self.memory_mib // self.cpus)
        extra = self.extra.format(directory=directory)
        for key in re.findall(r"^(\w+)=", extra, re.MULTILINE):
            text = re.sub(rf"^{key}=.*\n", "", text, flags=re.MULTILINE)
        gres = ""
        if self.gpus:
            text += "GresTypes=gpu\n"
            gres = f" Gres=gpu:{self.gpus}"
            for number in range(self.gpus):
                (directory / f"dev/gpu{number}").symlink_to("/dev/null")
            (directory / "gres.conf").write_text(
                "AutoDetect=off\n" + "".join(f"NodeName={node} Name=gpu File={directory}/dev/gpu{number}\n"
                                             for node in self.nodes for number in range(self.gpus)))
        host = socket.gethostname().split(".")[0]
        for number, node in enumerate(self.nodes, 1):
            text += (f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.{10 + number} Port={self.ports.numbers[number]} "
                     f"CPUs={self.cpus} RealMemory={self.memory_mib}{gres} State=UNKNOWN\n")
        text += "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF\n"
        text += "PartitionName=pilot Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=0\n"
        pathlib.Path(self.conf).write_text(text + extra)

    def launch(self, name, *command):
        """Starts the daemon unless it runs."""
        if name in self.daemons and self.daemons[name].poll() is None:
            return
        with open(f"{self.directory}/log/{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                  start_new_session=True, preexec_fn=die_with_parent)

    def start(self):
        """Starts what does not run and waits until every node is up."""
        where = self.directory
        self.launch("munged", "munged", "-F", "-f", f"--socket={where}/munge.sock", f"--key-file={where}/munge.key",
                    f"--pid-file={where}/munge.pid", f"--log-file={where}/log/munged.log", f"--seed-file={where}/munge.seed")
        wait_until(lambda: subprocess.run(["munge", "-n", "-S", f"{where}/munge.sock"], capture_output=True,
                                          check=False).returncode == 0, "munged answers")
        self.launch("slurmctld", "slurmctld", "-D", "-f", self.conf)
        for node in self.nodes:
            os.makedirs(f"{where}/spool/{node}", exist_ok=True)
            self.launch(node, "slurmd", "-D", "-N", node, "-f", self.conf)
        wait_until(lambda: set(self.states().values()) <= UP_STATES and len(self.states()) == len(self.nodes),
                   lambda: f"the nodes are up: {self.states()}\n{self.logs()}")

    def kill(self, name, signal_number=signal.SIGKILL):
        """Ends the daemon of a node, or slurmctld; what it started lives on. slurmctld writes its jobs to the disk some
        seconds late: killed at once, it has forgotten the newest, so it is better ended with SIGTERM."""
        self.daemons[name].send_signal(signal_number)
        self.daemons[name].wait(PATIENCE_S)

    def run(self, *command, check=True, timeout=PATIENCE_S):
        done = subprocess.run(command, env=self.env, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{shlex.join(command)}: {done.stderr}\n{self.logs()}")
        return done.stdout

    def states(self):
        """Node to its state, without the marks that sinfo adds."""
        listed = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False, timeout=15).split("\n")
        return {line.split()[0]: line.split()[1].rstrip("*~#!%$@^-+") for line in listed if line}

    def submit(self, script, *options):
        """Queues a batch job; returns its number."""
        path = f"{self.directory}/job.sh"
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/bash\n{script}\n")
        return int(self.run("sbatch", "--parsable", "--output", f"{self.directory}/log/job.%j.out", *options, path))

    def jobs(self):
        """Job number to state, of all that are queued or not over."""
        return {int(line.split()[0]): line.split()[1] for line in self.run("squeue", "-h", "-o", "%A %T").splitlines()}

    def job(self, number):
        """What `scontrol show job -d` says of the job, by key; the first of each."""
        said = {}
        for key, value in re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "show", "job", "-d", "-o", str(number))):
            said.setdefault(key, value)
        return said

    def wait_over(self, number):
        """Waits until the job and its epilog are over; returns its last state."""
        return wait_until(lambda: number not in self.jobs() and self.job(number)["JobState"],
                          lambda: f"job {number} is over\n{self.logs()}")

    def logs(self):
        text = ""
        for path in sorted(pathlib.Path(self.directory, "log").iterdir()):
            text += f"--- {path.name}\n" + "".join(path.read_text(errors="replace").splitlines(keepends=True)[-25:])
        return text

    def all_killed(self):
        """Whether nothing of the lab lives; what does is killed, which may have started others meanwhile."""
        left = processes(self.directory)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not left

    def close(self):
        """Ends all that was started here, by daemons, hooks and jobs too; returns what was left of them."""
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()
        left = processes(self.directory)
        wait_until(self.all_killed, f"nothing is left of {self.directory}")
        self.ports.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        return left


def main():
    described = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    described.add_argument("--nodes", type=int, default=3)
    described.add_argument("--gpus", type=int, default=0)
    described.add_argument("command", nargs=argparse.REMAINDER)
    given = described.parse_args()
    with Lab(nodes=given.nodes, gpus=given.gpus) as lab:
        return subprocess.run(given.command or ["bash"], env=lab.env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
