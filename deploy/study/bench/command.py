"""`fedmosaic bench`: runs and tables of a suite."""

from pathlib import Path
from typing import Any

from rich.progress import Progress

from common.config.component import unknown
from common.errors import ConfigError
from common.hardware.device import CPU, find_device
from deploy.progress import counted
from deploy.study.bench.origin import machine
from deploy.study.bench.pages.runs import write_runs
from deploy.study.bench.pages.tables import write
from deploy.study.bench.results import Results
from deploy.study.bench.runner import Runner
from deploy.study.bench.suite import Suite, read_suite
from deploy.terminal import terminal


def run(
    file: Path,
    changes: dict[str, Any],
    data: Path | None,
    settings: list[str] | None,
    seeds: int | None,
    workers: int,
    work: Path | None,
    out: Path | None,
    device: str = CPU,
    shards: Path | None = None,
    methods: list[str] | None = None,
) -> None:
    """Run the missing jobs of a suite on a device and write the tables of its settings. settings, methods: only these.
    shards: another folder of own shards.

    Raises ConfigError, DataError, DeviceError, RunError.
    """
    suite = _with_methods(read_suite(file, changes, data, shards), methods)
    chosen = _settings(suite, settings)
    if seeds is not None and not 1 <= seeds <= len(suite.seeds):
        raise ConfigError(suite.name, [f"--seeds is {seeds}, but the suite has {len(suite.seeds)} seeds"])
    work = work or Path("bench") / suite.name
    console = terminal()
    with Progress(*counted(), console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(suite.name)

        def progress(done: int, total: int, said: str) -> None:
            bar.update(task, completed=done, total=total)
            console.print(f"{done:>4}/{total}  {said}", highlight=False, soft_wrap=True)

        runner = Runner(suite, work, workers, progress, str(find_device(device)))
        results = runner.run(chosen, suite.seeds[:seeds])
    tables = []
    for setting in chosen:
        runs = {method: results[setting, method] for method in suite.rows_of(setting)}
        tuning = {method: runner.tuned((setting, method)) for method in runs}
        modalities = suite.experiment_of(setting, suite.reference, suite.seeds[0], suite.tuning.values[0]).modalities
        tables.append(Results(suite, setting, modalities, runs, tuning, machine(workers)))
    files = [path for results in tables for path in write(results, out or work)]
    for path in [*files, *write_runs(tables, out or work)]:
        console.print(str(path), highlight=False, soft_wrap=True)


def _with_methods(suite: Suite, wanted: list[str] | None) -> Suite:
    """The suite with some of its rows, in addition to those that tune them."""
    if wanted is None:
        return suite
    if mistakes := [unknown("method", name, list(suite.methods)) for name in wanted if name not in suite.methods]:
        raise ConfigError(suite.name, mistakes)
    settings = {name: setting.model_copy(update={"methods": [m for m in suite.rows_of(name) if m in wanted]})
                for name, setting in suite.settings.items()}  # fmt: skip
    return suite.model_copy(update={"settings": settings})


def _settings(suite: Suite, wanted: list[str] | None) -> list[str]:
    known = list(suite.settings)
    if mistakes := [unknown("setting", name, known) for name in wanted or [] if name not in known]:
        raise ConfigError(suite.name, mistakes)
    return [name for name in known if (wanted is None or name in wanted) and suite.rows_of(name)]
