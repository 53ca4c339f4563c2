"""Running the jobs of a benchmark on all cores. An interrupted benchmark continues where it stopped."""

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.files import write_whole
from common.hardware.device import CPU
from common.lifetime import end_with
from common.split.make import recipe
from common.words.figures import value
from deploy.shards.complete import needs_probe
from deploy.study.bench.own_shards import content_digest
from deploy.study.bench.statistics import ACCURACY, Aim, measure, validated
from deploy.study.bench.suite import Job, Suite, jobs
from deploy.study.bench.trial import Figures, perform, prepare, shards_of

Cell = tuple[str, str]
"""(setting, method)."""
Progress = Callable[[int, int, str], None]
"""Callback with the number of finished jobs, the number of all jobs of a stage, and a text about the last job."""


class Runner:
    """Runs jobs in worker processes. A file in the folder `work` keeps the figures of each finished job, so no job runs
    twice."""

    def __init__(self, suite: Suite, work: Path, workers: int, progress: Progress, device: str = CPU) -> None:
        self.suite, self.work, self.workers, self.progress, self.device = suite, work, workers, progress, device
        self.aim = suite.aim
        self._own_digest = content_digest(Path(suite.shards)) if suite.shards else ""

    def run(self, settings: Sequence[str], seeds: Sequence[int]) -> dict[Cell, list[Figures]]:
        """Tune, then run every method of the settings with every seed. Returns the figures by cell, in the order of the
        seeds.

        Raises RunError when a job fails for a reason other than divergence.
        """
        cells = [(setting, method) for setting in settings for method in self.suite.rows_of(setting)]
        places = sorted({self.suite.tuning_place(*cell) for cell in cells})
        tuning = self.suite.tuning
        with self._workers() as pool:
            wanted = jobs(self.suite, places, tuning.seeds, dict.fromkeys(places, tuning.values))
            tried = self._results(pool, wanted, later=len(cells) * len(seeds))
            best = {place: best_value(tried[place], self.aim) for place in places}
            values = {cell: [best[self.suite.tuning_place(*cell)]] for cell in cells}
            return self._results(pool, jobs(self.suite, cells, list(seeds), values))

    def tuned(self, cell: Cell) -> list[Figures]:
        """The tuning runs of a cell, from the files of an earlier `run`."""
        place = self.suite.tuning_place(*cell)
        tuning = self.suite.tuning
        found = jobs(self.suite, [place], tuning.seeds, {place: tuning.values})
        return [json.loads(self._file(job).read_text()) for job in found]

    @contextmanager
    def _workers(self) -> Iterator[ProcessPoolExecutor]:
        """Worker processes for all stages. They start when there is work. An error or Ctrl-C ends them."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, context, _start_worker, (os.getpid(),)) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise

    def _results(self, pool: ProcessPoolExecutor, wanted: Iterable[Job], later: int = 0) -> dict[Cell, list[Figures]]:
        """The figures of jobs by cell. Jobs without a file run first. later: the number of jobs of the next stages."""
        todo = list(wanted)
        self._perform(pool, [job for job in todo if not self._file(job).exists()], len(todo), later)
        results: dict[Cell, list[Figures]] = {}
        for job in todo:
            figures = json.loads(self._file(job).read_text())
            results.setdefault((job.setting, job.method), []).append(figures)
        return results

    def _perform(self, pool: ProcessPoolExecutor, missing: list[Job], total: int, later: int) -> None:
        done = total - len(missing)
        missing.sort(key=lambda job: (job.setting, job.seed))  # neighbours share shards
        distinct = {shards_of(job, self.work): job for job in missing}
        users = {place: [job.experiment for job in missing if shards_of(job, self.work) == place]
                 for place in distinct}  # fmt: skip
        preparing = [pool.submit(prepare, job, users[place], self.work) for place, job in distinct.items()]
        for number, made in enumerate(as_completed(preparing), start=1):
            made.result()
            self.progress(number, len(preparing), "shards ready")
        started, finished = time.monotonic(), 0
        running = {pool.submit(perform, job, self.work, self.device): job for job in missing}
        for future in as_completed(running):
            job, figures = running[future], future.result()
            if figures["status"] == "failed":
                raise RunError(f"{job.setting}, {job.method}, seed {job.seed}: {figures['reason']}")
            self._save(job, figures)
            done, finished = done + 1, finished + 1
            seconds = (time.monotonic() - started) / finished * (total - done + later)
            self.progress(done, total, f"{said(figures, self.aim)}{left(seconds)}")

    def _file(self, job: Job) -> Path:
        """The file of a job's figures. Its name contains a digest of everything on which the figures depend."""
        described = job.experiment.model_dump(exclude={"data"})
        data = job.experiment.data
        made = recipe(job.data) if job.own is None else [self._own_digest, job.data.modalities, data.classes]
        content: list[Any] = [job.arrangement, made, data.validation, data.complete_only, described]
        content += [self.device] if self.device != CPU else []
        content += [job.hostile.model_dump()] if job.hostile else []
        content += [job.probe] if job.probe and needs_probe(job.experiment) else []
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        name = f"{job.method}-seed{job.seed}-{job.value:g}-{digest}.json"
        return self.work / "runs" / job.setting / name

    def _save(self, job: Job, figures: Figures) -> None:
        path = self._file(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(figures, allow_nan=False).encode() + b"\n")


def _start_worker(parent: int) -> None:
    """Set up a worker process: without output, and with an end soon after the benchmark's process ends."""
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)  # the figures of a run contain its errors
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C, the benchmark's process ends the workers
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def said(figures: Figures, aim: Aim = ACCURACY) -> str:
    """A line about a finished run."""
    head = f"{figures['setting']}  {figures['method']}  seed {figures['seed']}  {figures['value']:g}"
    if figures["status"] != "completed":
        return f"{head}  {figures['status']}"
    return f"{head}  {value(aim.name, measure(figures, aim.name))}  {figures['seconds']:.0f} s"


def left(seconds: float) -> str:
    """An estimate of the remaining time, to a minute; empty for less than half a minute."""
    minutes = round(seconds / 60)
    if not minutes:
        return ""
    return f"  (about {minutes} min left)" if minutes < 120 else f"  (about {minutes / 60:.0f} h left)"


def best_value(tried: Iterable[Figures], aim: Aim = ACCURACY) -> float:
    """The value with the best validation score, averaged over the seeds; in a tie, the smallest. A value with a run
    that diverged comes last."""
    merits: dict[float, list[float]] = {}
    for figures in tried:
        merits.setdefault(figures["value"], []).append(aim.merit(validation_score(figures, aim)))
    means = {value: sum(given) / len(given) for value, given in merits.items()}
    return max(sorted(means), key=means.__getitem__)


def validation_score(figures: Figures, aim: Aim = ACCURACY) -> float | None:
    """The mean of the metric on validation with all modalities over the last quarter of the rounds; None for a run that
    diverged or does not have it."""
    if figures["status"] != "completed":
        return None
    scores = validated(figures, aim)
    last = [score for score in scores[-max(1, len(scores) // 4) :] if score is not None]
    return sum(last) / len(last) if last else None
