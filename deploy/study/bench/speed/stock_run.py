"""Stock Flower on this machine, started with its own commands: its FedAvg, its defaults, and a ClientApp like those in
its guides. The apps are the templates in `stock/`."""

import json
import shutil
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from common.config.experiment import Experiment
from common.errors import RunError
from deploy.engines.launch import START_SECONDS, FlowerCommand, Link, executable
from deploy.engines.processes import Processes, free_ports, wait_for_port
from deploy.hosts.environment import SETTINGS

TEMPLATES = Path(__file__).parent / "stock"
LIMIT_SECONDS = 300.0
QUIET = {name: value for name, value in SETTINGS.items() if name != "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"}
"""Flower's settings without the one that makes Flower faster than its default."""
LOOPBACK = ["--host", "127.0.0.1"]


def stock_rounds(tensors: int, values: int, rounds: int, work: Path) -> list[float]:
    """The seconds of each round after the first: a SuperLink, two SuperNodes, clients that add 1 to every value.

    tensors, values: the total numbers of the model.
    """
    settings = {"tensors": tensors, "values": values, "num-server-rounds": rounds + 1}
    return _run("deployment", settings, nodes=2, work=work)


def stock_simulation(experiment: Experiment, folders: list[Path], rounds: int, work: Path) -> list[float]:
    """The seconds of each round after the first in Flower's simulation, with one CPU per client. The clients train an
    experiment's model on its data with a plain PyTorch loop."""
    settings: dict[str, str | int] = {
        "experiment": experiment.to_json(),
        "shards": str(folders[0].parent.resolve()),
        "clients": len(folders),
        "num-server-rounds": rounds + 1,
    }
    return _run("simulation", settings, nodes=0, work=work)


def _run(template: str, settings: Mapping[str, str | int], nodes: int, work: Path) -> list[float]:
    """Start Flower, run a template's app to its end, and stop Flower. Returns the seconds between the rounds after the
    first."""
    work = work.resolve()
    app, times = work / "app", work / "times.json"
    shutil.copytree(TEMPLATES / template, app / "stock_app")
    _write_project(app, {**settings, "times": str(times)})
    (work / "home").mkdir()
    processes = Processes(work / "logs", QUIET | {"FLWR_HOME": str(work / "home")})
    try:
        control, fleet = free_ports(2)
        _start_superlink(processes, work, control, None if not nodes else fleet)
        for index, port in enumerate(free_ports(nodes) if nodes else []):
            command = [executable("flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{fleet}", *LOOPBACK]
            processes.start(f"supernode-{index}", [*command, "--port", str(port)], work)
        flower = FlowerCommand(work / "cli", Link(f"127.0.0.1:{control}"), processes.env)
        clients = settings.get("clients", nodes)
        workers = f"num-supernodes={clients} client-resources-num-cpus=1 client-resources-num-gpus=0.0"
        run = flower.submit(app, "" if nodes else workers)
        _wait(times, int(settings["num-server-rounds"]) + 1, flower, run, processes)
    finally:
        processes.stop()
    ended = json.loads(times.read_text(encoding="utf-8"))
    return [after - before for before, after in pairwise(ended[1:])]


def _start_superlink(processes: Processes, work: Path, control: int, fleet: int | None) -> None:
    command = [executable("flower-superlink"), "--insecure", *LOOPBACK, "--port", str(control)]
    command += ["--disable-runtime-dependency-installation"]
    command += ["--simulation"] if fleet is None else ["--fleet-api-address", f"127.0.0.1:{fleet}"]
    processes.start("superlink", command, work)
    for port in (control, fleet):
        if port is not None:
            wait_for_port(port, processes, START_SECONDS)


def _write_project(app: Path, settings: Mapping[str, str | int]) -> None:
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    template = (TEMPLATES / "pyproject.toml.template").read_text(encoding="utf-8")
    (app / "pyproject.toml").write_text(template + "\n".join(lines) + "\n", encoding="utf-8")


def _wait(times: Path, count: int, flower: FlowerCommand, run: str, processes: Processes) -> None:
    """Wait until the app has written `count` times.

    Raises RunError when the run ends or the time limit passes before.
    """
    deadline, look = time.monotonic() + LIMIT_SECONDS, time.monotonic() + 20
    while not times.exists() or len(json.loads(times.read_text(encoding="utf-8"))) < count:
        processes.check()
        if time.monotonic() > look:
            look = time.monotonic() + 20
            status, details = flower.status(run)
            if status.startswith("finished") and not times.exists():
                raise RunError(f"the stock run ended: {status} {details}; see {processes.logs}")
        if time.monotonic() > deadline:
            raise RunError(f"the stock run did not end within {LIMIT_SECONDS:g} s; see {processes.logs}")
        time.sleep(0.2)
