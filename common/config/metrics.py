"""The metrics of an experiment by key, without their module, so that every part of the project can name them."""

from collections.abc import Sequence

from common.config.component import Component, Reference, build, find, own_names


def standard_metrics(task: str) -> dict[str, Component]:
    """The metrics that every run of a task has, by key: those of this project that have no options."""
    kinds = {name: find("metric", name) for name in own_names("metric")}
    return {key_of(name, kind()): kind() for name, kind in kinds.items()
            if not kind.model_fields and task in getattr(kind, "tasks", ())}  # fmt: skip


def metrics_by_key(task: str, further: Sequence[Reference]) -> dict[str, Component]:
    """The standard metrics of a task and those that an experiment names, by key."""
    named = [(str(reference["name"]), build("metric", reference)) for reference in further]
    return standard_metrics(task) | {key_of(name, one): one for name, one in named}


def key_of(name: str, metric: Component) -> str:
    """The key of a metric in figures, e.g. "macro_f1" or "sensitivity_at_0.3"."""
    options = (f"{value:g}" if isinstance(value, float) else str(value) for value in metric.model_dump().values())
    return "_".join([name.replace("-", "_"), *options])
