"""Prometheus: the figures of the last round as text, at http://127.0.0.1:PORT/metrics, while the run works."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from common.config.experiment import Experiment
from server.record.scalars import scalars
from server.trackers.base import Tracker, TrackerOptions
from server.trackers.shared.packages import needed

HOST, PREFIX = "127.0.0.1", "fedmosaic_"
MEASURED = ("test", "validation")
"""The parts of a line that contain figures by subset of modalities."""
GAUGES = {
    "run": ("the run, with the value 1", ("name", "method", "seed")),
    "rounds": ("the rounds of the whole run", ()),
    "round": ("the last finished round", ()),
    "figure": ("a figure of the model, by subset of modalities", ("on", "subset", "figure")),
    "loss": ("a term of the loss, the mean over the clients", ("term",)),
    "seconds": ("the seconds of the last round, by step", ("step",)),
    "sites": ("the number of sites, by their state in the last round", ("state",)),
}
"""By name: the help text, and the labels."""


class PrometheusTracker(Tracker):
    """An endpoint with a registry of its own. It ends with the run."""

    def __init__(self, options: "Prometheus") -> None:
        self._options = options
        self._server: Any = None
        self._known: set[str] = set()

    def begin(self, experiment: Experiment, folder: Path, resumed: bool) -> None:
        """Open the endpoint.

        Raises OSError when another process uses the port.
        """
        client = needed("prometheus_client", "prometheus")
        registry = client.CollectorRegistry()
        self._gauges = {
            name: client.Gauge(PREFIX + name, text, labels, registry=registry)
            for name, (text, labels) in GAUGES.items()
        }
        self._bytes = client.Counter(f"{PREFIX}bytes", "bytes since the start", ["direction"], registry=registry)
        self._gauges["run"].labels(experiment.name, experiment.method["name"], experiment.seed).set(1)
        self._gauges["rounds"].set(experiment.federation.rounds)
        self._server, self._thread = client.start_http_server(self._options.port, HOST, registry)

    def round(self, line: Mapping[str, Any]) -> None:
        """Replace the figures of the round before."""
        self._gauges["round"].set(line["round"])
        for on in MEASURED:
            for subset, figures in line.get(on, {}).items():
                for figure, value in scalars(figures):
                    self._gauges["figure"].labels(on, subset, figure).set(value)
        for gauge, values in (("loss", line.get("losses", {})), ("seconds", line.get("seconds", {}))):
            for label, value in scalars(values):
                self._gauges[gauge].labels(label).set(value)
        for state, count in self._counted(line).items():
            self._gauges["sites"].labels(state).set(count)
        for direction in ("up", "down"):
            self._bytes.labels(direction).inc(line.get(f"bytes_{direction}", 0))

    def close(self) -> None:
        """Close the endpoint."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def _counted(self, line: Mapping[str, Any]) -> dict[str, int]:
        """The number of sites by state. connected: known and not missing. trained: with a usable reply."""
        part = {name: line.get(name, {}) for name in ("sites", "clients", "failed", "refused", "missing")}
        self._known |= part["sites"].keys() | part["clients"].keys()
        counts = {name: len(part[name]) for name in ("failed", "refused", "missing")}
        return {"connected": len(self._known - part["missing"].keys()), "trained": len(part["clients"]), **counts}


class Prometheus(TrackerOptions):
    """An endpoint on 127.0.0.1, which every user of the server's host can read. Package: `fedmosaic[prometheus]`."""

    port: int = Field(9464, ge=1, le=65535)
    """The port of the endpoint."""

    def build(self) -> PrometheusTracker:
        """A tracker for one run."""
        return PrometheusTracker(self)
