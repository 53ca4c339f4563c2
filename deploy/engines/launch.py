"""The engines: ways to run an experiment that differ only in the Flower processes that they start.

inprocess   no process: the command runs server and clients in turn (deploy/engines/in_process.py)
simulation  a SuperLink in simulation mode; Flower runs the clients in a pool of workers on this machine
processes   a SuperLink, and one SuperNode per client with its own shard folder, as processes on this machine
superlink   no process: the run goes to a running SuperLink and its connected SuperNodes
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from common.config.component import Reference
from common.config.experiment import Experiment
from common.config.plugins import VARIABLE as PLUGINS
from common.config.reading import plugins_at_sites
from common.data.sites import client_folders
from common.errors import RunError
from common.hardware.computing import cores
from deploy.engines.app_folder import make_app_folder
from deploy.engines.processes import Processes, free_ports, wait_for_port
from deploy.hosts import control
from deploy.hosts.clientapp import SUPERNODE, commands_folder
from deploy.hosts.environment import SETTINGS
from deploy.hosts.explain import FLOWER_LOG
from deploy.hosts.superexec import VARIABLE, isolated

Engine = Literal["inprocess", "simulation", "processes", "superlink"]
CONNECTION = "fedmosaic"
START_SECONDS = 60.0
STATUS_EVERY_SECONDS = 15.0
POLL_SECONDS = 0.2
UNKNOWN, UNANSWERED_AT_MOST = "unknown", 4
UNAUTHENTICATED = "Authentication failed"
"""Output of Flower's command after an answer 401. Its advice to log in does not help here."""
KEY_IN_USE = "[code: 23]"
"""The beginning of Flower's refusal of a public key that is registered already."""


@dataclass(frozen=True)
class Link:
    """A SuperLink to run on. root_certificates: "" for an unencrypted connection. token: file of the operator's token;
    "": the file that the environment names, if any."""

    address: str
    root_certificates: str = ""
    token: str = ""


@dataclass
class Launch:
    """A submitted run. run_folder: the folder of its results, if it is on this machine."""

    run_id: str
    flower: "FlowerCommand"
    processes: Processes
    run_folder: Path | None

    def wait(self) -> Iterator[None]:
        """Yield repeatedly until the run has ended.

        Raises RunError when the run fails or when a process that it needs ends.
        """
        checked, unanswered = time.monotonic(), 0
        while True:
            yield
            self.processes.check()
            summary = self.run_folder / "summary.json" if self.run_folder else None
            ended = summary is not None and summary.exists()
            if ended or time.monotonic() - checked > STATUS_EVERY_SECONDS:
                checked = time.monotonic()
                status, details = self.flower.status(self.run_id)
                unanswered = unanswered + 1 if status == UNKNOWN else 0
                if unanswered == UNANSWERED_AT_MOST:
                    raise RunError(f"the state of run {self.run_id} is unknown: {details}{self._remedy()}")
                if status.startswith("finished"):
                    if status != "finished:completed":
                        raise RunError(self._reason(f"Flower reports {status} {details}".strip()))
                    return
            time.sleep(POLL_SECONDS)

    def _remedy(self) -> str:
        """Advice for a run that ended without a reason, if this machine has its checkpoints."""
        saved = self.run_folder and list((self.run_folder / "checkpoints").glob("round-*"))
        return "; its rounds are saved: continue with --resume" if saved else ""

    def _reason(self, otherwise: str) -> str:
        summary = self.run_folder / "summary.json" if self.run_folder else None
        if summary is None or not summary.exists():
            where = self.processes.logs if self.run_folder else "the log of the SuperLink"
            return f"{otherwise}; see {where}{self._remedy()}"
        return str(json.loads(summary.read_text())["reason"])


class FlowerCommand:
    """Flower's command line with a separate home, so that it neither reads nor changes settings of the user."""

    def __init__(self, home: Path, link: Link, env: dict[str, str]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        trust = f"root-certificates = {json.dumps(link.root_certificates)}"
        lines = [
            "[superlink]",
            f'default = "{CONNECTION}"',
            f"[superlink.{CONNECTION}]",
            f"address = {json.dumps(link.address)}",
            trust if link.root_certificates else "insecure = true",
        ]
        (home / "config.toml").write_text("\n".join(lines) + "\n")
        self.env = {**env, "FLWR_HOME": str(home), **({control.VARIABLE: link.token} if link.token else {})}

    def submit(self, app: Path, federation: str, *more: str) -> str:
        """Start a run of an app's folder and return its id. more: further options of `flwr run`.

        Raises RunError with Flower's message.
        """
        extra = ["--federation-config", federation] if federation else []
        answer = self._call("run", str(app), CONNECTION, "--format", "json", *extra, *more)
        if "run-id" not in answer:
            raise RunError(f"the run could not be submitted: {answer.get('error-message', answer)}")
        return str(answer["run-id"])

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's status of a run, with details."""
        runs = self._call("ls", CONNECTION, "--run-id", run_id, "--format", "json").get("runs", [])
        if not runs:
            return UNKNOWN, "the SuperLink does not answer"
        return str(runs[0]["status"]), str(runs[0].get("status-details") or "")

    def stop(self, run_id: str) -> None:
        """Ask the SuperLink to end a run."""
        self._call("stop", run_id, CONNECTION, "--format", "json")

    def register(self, key: Path, name: str) -> bool:
        """Register the public key of a node. Returns whether the key is new to the SuperLink.

        Raises RunError with Flower's message.
        """
        answer = self._call("supernode", "register", str(key), CONNECTION, "--name", name, "--format", "json")
        said = str(answer.get("error-message", answer))
        if "node-id" not in answer and KEY_IN_USE not in said:
            raise RunError(f"{name} could not be registered: {said}")
        return "node-id" in answer

    def _call(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "deploy.hosts.control", "client", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            cwd=self.env["FLWR_HOME"],
        )
        if UNAUTHENTICATED in done.stdout + done.stderr:
            return {"error-message": control.REFUSED}
        start = done.stdout.find("{")
        try:
            answer = json.loads(done.stdout[start:]) if start >= 0 else {}
        except ValueError:
            answer = {}
        return answer or {"error-message": (done.stdout + done.stderr).strip()[-800:]}


def executable(name: str) -> str:
    """The path of a command of this Python installation.

    Raises RunError when the command is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise RunError(f"the command {name} is not installed next to {sys.executable}")
    return found


@dataclass(frozen=True)
class Plan:
    """A run to start. Paths are those of the ServerApp's host.

    shards: folder of the clients' shards; the nodes of engine superlink have their own. run_folder: None: runs/<name>
    on that host. resume: whether to continue the run in that folder. device: the device of the clients on this machine.
    gpus_per_client: the share of a GPU that a client of a simulation uses. server_device: the device of the ServerApp.
    init: the model to start from. trackers: the trackers of the ServerApp.
    """

    engine: Engine
    experiment: Experiment
    shards: Path
    test_shard: Path | None = None
    probe_shard: Path | None = None
    run_folder: Path | None = None
    resume: bool = False
    device: str = "cpu"
    gpus_per_client: float = 0.0
    server_device: str = "cpu"
    init: Path | None = None
    trackers: tuple[Reference, ...] = ()

    @property
    def threads(self) -> int:
        """The threads of each process on this machine, if the computation is not deterministic: the cores divided among
        the clients; 0 for all cores. More threads than cores make every process many times slower."""
        return 0 if self.engine in ("inprocess", "superlink") else max(1, cores() // self.experiment.data.clients)

    def settings(self) -> dict[str, str]:
        """The run configuration of the apps."""
        return {
            "experiment": self.experiment.to_json(),
            "shards": str(self.shards.resolve()),
            "test-shard": str(self.test_shard) if self.test_shard else "",
            "probe-shard": str(self.probe_shard) if self.probe_shard else "",
            "run-dir": str(self.run_folder) if self.run_folder else "",
            "init": str(self.init) if self.init else "",
            "resume": "yes" if self.resume else "",
            "device": self.device,
            "server-device": self.server_device,
            "threads": str(self.threads),
            "engine": self.engine,
            "trackers": json.dumps(self.trackers) if self.trackers else "",
        }


@contextmanager
def launch(
    plan: Plan, link: Link | None = None, watch: bool = True, say: Callable[[str], None] = lambda _: None
) -> Iterator[Launch]:
    """Submit a run. At the end, also after an error, stop every process that was started for it.

    watch: whether the run folder is on this machine; else it is a path of the SuperLink's host. say: gets a text for
    each step.

    Raises RunError when a process does not start.
    """
    with tempfile.TemporaryDirectory(prefix="fedmosaic-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        watched = plan.run_folder if watch else None
        logs = watched / "logs" if watched else work / "logs"
        allowed = " ".join(map(str, plugins_at_sites(plan.experiment.to_json())))
        processes = Processes(logs, SETTINGS | {"FLWR_HOME": str(work / "home"), PLUGINS: allowed})
        try:
            if link is None:
                say("starting a SuperLink")
                link = _start_superlink(processes, work, simulation=plan.engine == "simulation")
            flower = FlowerCommand(work / "cli", link, processes.env)
            make_app_folder(work / "app", plan.settings())
            clients = plan.experiment.data.clients
            if plan.engine == "processes":
                vital = plan.experiment.federation.needed(clients) == clients
                say(f"starting {clients} SuperNodes")
                _start_nodes(processes, work, plan, vital)
            federation = ""
            if plan.engine == "simulation":
                workers = f"client-resources-num-cpus=1 client-resources-num-gpus={plan.gpus_per_client}"
                federation = f"num-supernodes={clients} {workers}"
                say(side_by_side(clients, plan.gpus_per_client))
            say(f"submitting the run to the SuperLink at {link.address}")
            run_id = flower.submit(work / "app", federation)
            say(f"submitted run {run_id}; logs: {logs if watched else 'at the SuperLink and its nodes'}")
            yield from _followed(Launch(run_id, flower, processes, watched), foreign=plan.engine == "superlink")
        finally:
            processes.stop()


def _followed(launched: Launch, foreign: bool) -> Iterator[Launch]:
    """Yield the launch. After an interrupt, stop a run on a SuperLink that was running before."""
    try:
        yield launched
    except KeyboardInterrupt:
        if foreign:
            launched.flower.stop(launched.run_id)
        raise


def _start_superlink(processes: Processes, work: Path, simulation: bool) -> Link:
    port, fleet = free_ports(2)
    command = [executable("flower-superlink"), "--insecure", "--disable-runtime-dependency-installation"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--simulation"] if simulation else ["--fleet-api-address", f"127.0.0.1:{fleet}"]
    processes.start("superlink", command, work)
    wait_for_port(port, processes, START_SECONDS)
    if not simulation:
        wait_for_port(fleet, processes, START_SECONDS)
        (processes.logs / "fleet-port").write_text(str(fleet))
    return Link(f"127.0.0.1:{port}")


def side_by_side(clients: int, gpus_per_client: float) -> str:
    """A text with the number of clients of a simulation that train at the same time, and the reason."""
    at_once, why = cores(), "one core per client"
    if gpus_per_client:
        gpus = torch.cuda.device_count()
        by_gpu = int(gpus / gpus_per_client) if gpus_per_client < 1 else gpus // int(gpus_per_client)
        at_once, why = min(at_once, by_gpu), f"{why}, and {gpus_per_client:g} of {gpus} GPUs"
    return f"{min(at_once, clients)} of {clients} clients train side by side ({why})"


def _start_nodes(processes: Processes, work: Path, plan: Plan, vital: bool) -> None:
    clients = plan.experiment.data.clients
    hardware = {"device": plan.device, "threads": plan.threads, "deterministic": "yes"}
    fleet = (processes.logs / "fleet-port").read_text()
    commands = commands_folder()  # the commands of a site, which start faster and run the installed code
    path = f"{commands}{os.pathsep}{processes.env['PATH']}"
    env = {"PATH": path, "XDG_RUNTIME_DIR": str(work)}  # the sockets of resident workers end with the run
    folders = client_folders(plan.shards.resolve(), clients)
    for index, (port, folder) in enumerate(zip(free_ports(clients), folders, strict=True)):
        settings = {"shard": str(folder), **hardware}
        command = [str(commands / SUPERNODE), "--insecure", "--superlink", f"127.0.0.1:{fleet}"]
        command += [
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--node-config",
            " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items()),
        ]
        remedy = f"with federation.min_replies below {clients} (all nodes), a run continues without some of its nodes"
        secret = work / f"superexec-{index}.secret"
        closed, superexec_options = isolated(f"127.0.0.1:{port}", secret, ["--insecure"])
        own = {
            FLOWER_LOG: str(processes.log(f"supernode-{index}-flower").resolve()),
            VARIABLE: "\n".join(superexec_options),
        }
        processes.start(f"supernode-{index}", [*command, *closed], work, remedy if vital else None, {**env, **own})
