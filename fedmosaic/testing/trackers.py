"""The contract of a tracker: the figures of a run arrive."""

from pathlib import Path
from typing import Any

import pytest

from fedmosaic.testing.examples import experiment
from server.trackers.base import Tracker, TrackerOptions

TAG, OTHER = "test/audio/accuracy", "losses/fused"


def line(number: int) -> dict[str, Any]:
    """The line of a round in metrics.jsonl, with a few of its fields. A list and a text are no figures."""
    return {
        "round": number,
        "test": {"audio": {"accuracy": number / 8, "per_class": [0.5, None]}},
        "validation": {},
        "losses": {"fused": 1.0 + number},
        "clients": {"site-a": {"num_examples": 20}} if number else {},
        "failed": {"site-b": "no reply"} if number else {},
        "collapsed": "",
        "bytes_up": 1000,
        "bytes_down": 2000,
        "seconds": {"total": 0.5, "ended": 1.7e9 + number},
    }


def summary(status: str = "completed") -> dict[str, Any]:
    """A part of summary.json."""
    return {"name": "run", "status": status, "reason": "", "rounds": 2, "bytes_up": 3000}


class TrackerContract:
    """Override the fixture `options`, and `values`, which reads the figures that have arrived."""

    @pytest.fixture
    def options(self) -> Any:
        """The tracker's options."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A run folder."""
        made = tmp_path / "runs" / "run"
        made.mkdir(parents=True)
        (made / "experiment.yaml").write_text("name: run\n")
        return made

    def values(self, folder: Path, tag: str) -> dict[int, float]:
        """By round, the values of a figure that have arrived. The run is over. tag: e.g. test/audio/accuracy."""
        raise NotImplementedError

    def follow(self, tracker: Tracker, folder: Path, numbers: range, resumed: bool = False) -> None:
        """Pass a run of some rounds to a tracker."""
        tracker.begin(experiment(), folder, resumed)
        for number in numbers:
            tracker.round(line(number))
        tracker.end(summary())

    def test_the_figures_of_every_round_arrive(self, options: TrackerOptions, folder: Path) -> None:
        tracker = options.build()
        self.follow(tracker, folder, range(3))
        tracker.close()
        assert self.values(folder, TAG) == {0: 0.0, 1: 0.125, 2: 0.25}
        assert self.values(folder, OTHER) == {0: 1.0, 1: 2.0, 2: 3.0}

    def test_a_resumed_run_continues(self, options: TrackerOptions, folder: Path) -> None:
        tracker = options.build()
        tracker.begin(experiment(), folder, False)
        for number in (0, 1):
            tracker.round(line(number))
        tracker.close()
        again = options.build()
        self.follow(again, folder, range(2, 4), resumed=True)
        again.close()
        assert self.values(folder, OTHER) == {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}

    def test_a_failed_run_ends(self, options: TrackerOptions, folder: Path) -> None:
        tracker = options.build()
        tracker.begin(experiment(), folder, False)
        tracker.round(line(0))
        tracker.end(summary("failed"))
        tracker.close()
        assert self.values(folder, TAG) == {0: 0.0}

    def test_a_tracker_closes_without_a_beginning(self, options: TrackerOptions) -> None:
        options.build().close()

    def test_the_options_need_no_package_and_return_from_their_json(self, options: TrackerOptions) -> None:
        assert type(options).model_validate_json(options.model_dump_json()) == options
