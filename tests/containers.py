"""Services of compose files as containers of podman, without a daemon: what a newer Docker Compose does, by hand.

podman 4.3 starts containers and knows networks, volumes, read-only roots, capabilities and restarts; the order and the
conditions of `depends_on` it does not know. Everything it stores lies in a folder of its own.
"""

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compose import Service, Volume, services

BASE, IMAGE = "docker.io/library/python:3.11-slim", "fedmosaic:latest"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("buildah", "podman", "runc", "catatonit", "debootstrap", "iptables", "tar")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_FILES = (Path("/etc/pip.conf"), Path("/etc/xdg/pip"), Path.home() / ".config" / "pip")
DONE_SECONDS = 300
PROCESSES = 30_000


def why_not() -> str:
    """Why no container can be built and run here; "" where they can."""
    if os.geteuid() != 0:
        return "containers without a daemon take root here"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@dataclass(frozen=True)
class Store:
    """Where images, containers and networks are kept."""

    folder: Path

    def _options(self) -> list[str]:
        return [
            "--root",
            str(self.folder / "store"),
            "--runroot",
            str(self.folder / "run"),
            "--storage-driver",
            "overlay",
        ]

    def podman(self, *arguments: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run podman."""
        command = ["podman", *self._options(), "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        return _run([*command, "--network-config-dir", str(self.folder / "networks"), *arguments], check, **more)

    def buildah(self, *arguments: str) -> None:
        """Run buildah."""
        _run(["buildah", *self._options(), *arguments], True)

    def has(self, image: str) -> bool:
        """Whether an image is there."""
        return self.podman("image", "exists", image, check=False).returncode == 0

    def make_base(self) -> None:
        """The image that the Dockerfile begins with, from this system's packages; with what pip needs on this machine
        to find its index."""
        root = self.folder / "root"
        if not (root / "usr").exists():
            include = "python3,python3-venv,ca-certificates,passwd"
            _run(["debootstrap", "--variant=minbase", f"--include={include}", "bookworm", str(root), *_mirror()], True)
        for name in ("python", "python3"):
            link = root / "usr" / "local" / "bin" / name
            link.unlink(missing_ok=True)
            link.symlink_to("/usr/bin/python3")
        for path in (CERTIFICATES, *PIP_FILES):
            if path.exists():
                target = root / path.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(path, target, dirs_exist_ok=True) if path.is_dir() else shutil.copy(path, target)
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
            self.podman("import", "--change", f"ENV PATH={PATH}", "-", BASE, stdin=archive.stdout)

    def build(self, project: Path) -> None:
        """The project's image, as its Dockerfile says."""
        variables = [f"--env={key}={value}" for key, value in os.environ.items() if key.startswith("PIP_")]
        wheels = [f"--volume={folder}:{folder}:ro" for folder in _local_indexes()]
        how = ["--isolation", "chroot", "--network", "host", "--layers", "--format", "docker", *variables, *wheels]
        ignored = project / "deploy" / "hosts" / "Dockerfile.dockerignore"
        files = ["-f", str(project / "deploy" / "hosts" / "Dockerfile"), "--ignorefile", str(ignored)]
        self.buildah("bud", *how, *files, "-t", IMAGE, str(project))


def limits() -> list[str]:
    """Limits that this process may hand on: podman's own, and its word for the host's, may be above ours, and without
    the capability SYS_RESOURCE nobody can go there."""
    files, processes = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    most = PROCESSES if processes < 0 else min(processes, PROCESSES)
    return [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={most}:{most}"]


def _run(command: Sequence[str], check: bool, **more: Any) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:{PATH}"}
    done = subprocess.run(command, text=True, capture_output=True, env=env, **more)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def _mirror() -> list[str]:
    """The one that this machine's packages come from."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for line in path.read_text().splitlines():
            if line.startswith("URIs:"):
                return [line.split()[1]]
    return []


def _local_indexes() -> Iterator[Path]:
    """Folders of this machine that its pip looks into, each with what an index refers to beside it."""
    files = [file for path in PIP_FILES for file in ([path] if path.is_file() else path.glob("*.conf"))]
    told = " ".join([*(file.read_text() for file in files), os.environ.get("PIP_FIND_LINKS", "")])
    for word in dict.fromkeys(told.split()):
        folder = Path(word.removeprefix("file://"))
        if folder.is_absolute() and folder.is_dir():
            yield folder.parent if folder.name == "simple" else folder


@dataclass
class Project:
    """A compose file, its variables and the folder that its paths are relative to.

    joined: networks of other projects that stand for one of this one, by name.
    """

    store: Store
    file: Path
    folder: Path
    variables: Mapping[str, str]
    name: str
    joined: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = services(self.file, {**self.variables, "TORCH_INDEX": ""})

    def up(self) -> None:
        """Start every service that has no profile, each after those that it depends on."""
        for name in self._in_order():
            self.start(name)

    def start(self, name: str) -> None:
        """Start a service once what it depends on is as it must be."""
        for other, needed in self.services[name].raw.get("depends_on", {}).items():
            self.wait(other, needed["condition"])
        self.store.podman("run", "--detach", "--name", self.container(name), *self._options(name), *self._command(name))

    def run(self, name: str, *command: str) -> str:
        """Run a service once, with another command if given, to its end; what it said."""
        options, chosen = self._options(name), self._command(name)
        given = [chosen[0], *command] if command else chosen
        done = self.store.podman("run", "--rm", *options, *given, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def submit(self, name: str, *command: str) -> None:
        """Run a command in a service's place that goes on by itself."""
        self.store.podman("run", "--detach", "--rm", *self._options(name), IMAGE, *command)

    def wait(self, name: str, condition: str) -> None:
        """Wait for one of the conditions of `depends_on`."""
        deadline = time.monotonic() + DONE_SECONDS
        while not self._is(name, condition):
            assert time.monotonic() < deadline, f"{name} is not {condition}:\n{self.log(name)}"
            time.sleep(0.5)

    def state(self, name: str) -> dict[str, Any]:
        """What podman says of a service's container."""
        found: dict[str, Any] = json.loads(self.store.podman("inspect", self.container(name)).stdout)[0]
        return found

    def kill(self, name: str) -> None:
        """End a container's main process by force."""
        os.kill(self.state(name)["State"]["Pid"], 9)

    def log(self, name: str) -> str:
        """The end of what a service said."""
        done = self.store.podman("logs", "--tail", "40", self.container(name), check=False)
        return done.stdout + done.stderr

    def down(self) -> None:
        """Take everything away."""
        for name in reversed(list(self.services)):
            self.store.podman("rm", "--force", "--time", "5", self.container(name), check=False)
        self.store.podman(
            "volume", "rm", "--force", *[self._volume_name(name) for name in self._volumes()], check=False
        )
        for name in self._networks():
            self.store.podman("network", "rm", "--force", self._network_name(name), check=False)

    def container(self, name: str) -> str:
        """What a service's container is called."""
        return f"{self.name}-{name}"

    def make_networks(self) -> None:
        """The networks of the file, those that are joined excepted."""
        for name, raw in self._networks().items():
            if name not in self.joined:
                inside = ["--internal"] if (raw or {}).get("internal") else []
                self.store.podman("network", "create", *inside, self._network_name(name), check=False)

    def _is(self, name: str, condition: str) -> bool:
        state = self.state(name)["State"]
        if condition == "service_completed_successfully":
            assert state["Running"] or state["ExitCode"] == 0 or self.services[name].raw.get("restart"), self.log(name)
            return not state["Running"] and state["ExitCode"] == 0 and state["Status"] == "exited"
        if condition == "service_started":
            return bool(state["Running"])
        return self.store.podman("healthcheck", "run", self.container(name), check=False).returncode == 0

    def _in_order(self) -> list[str]:
        order: list[str] = []

        def add(name: str) -> None:
            for other in self.services[name].raw.get("depends_on", {}):
                add(other)
            if name not in order:
                order.append(name)

        for name, service in self.services.items():
            if "profiles" not in service.raw:
                add(name)
        return order

    def _command(self, name: str) -> list[str]:
        return [IMAGE, *self.services[name].command]

    def _options(self, name: str) -> list[str]:
        service = self.services[name]
        raw = service.raw
        options = [*limits(), "--restart", str(raw.get("restart", "no"))]
        options += ["--init", "--init-path", shutil.which("catatonit") or ""] if raw.get("init") else []
        options += ["--read-only"] if raw.get("read_only") else []
        options += [f"--tmpfs={one}" for one in raw.get("tmpfs", [])]
        options += [f"--cap-drop={one}" for one in raw.get("cap_drop", [])]
        options += [f"--security-opt={one.split(':')[0]}" for one in raw.get("security_opt", [])]
        options += [f"--user={raw['user']}"] if "user" in raw else []
        options += [f"--env={key}={value}" for key, value in service.environment.items()]
        options += [f"--volume={self._mount(volume)}" for volume in service.volumes]
        options += [f"--stop-timeout={str(raw['stop_grace_period']).rstrip('s')}"] if "stop_grace_period" in raw else []
        return [*options, *self._connections(name, service)]

    def _connections(self, name: str, service: Service) -> list[str]:
        if service.raw.get("network_mode") == "none":
            return ["--network=none"]
        return [f"--network={self._network_name(one)}:alias={name}" for one in service.raw.get("networks", ["default"])]

    def _mount(self, volume: Volume) -> str:
        named = not volume.source.startswith((".", "/"))
        source = self._volume_name(volume.source) if named else str((self.folder / volume.source).resolve())
        return f"{source}:{volume.target}{':ro' if volume.read_only else ''}"

    def _networks(self) -> dict[str, Any]:
        raw = self.file_content.get("networks") or {}
        return (
            {**raw, "default": {}} if not raw or any("networks" not in s.raw for s in self.services.values()) else raw
        )

    def _volumes(self) -> dict[str, Any]:
        return dict(self.file_content.get("volumes") or {})

    @property
    def file_content(self) -> dict[str, Any]:
        """The file as YAML, variables left as they are."""
        import yaml

        return dict(yaml.safe_load(self.file.read_text()))

    def _network_name(self, name: str) -> str:
        return self.joined.get(name, f"{self.name}-{name}")

    def _volume_name(self, name: str) -> str:
        return f"{self.name}-{name}"
