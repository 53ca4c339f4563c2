"""The tasks: what a label is, and what the model predicts. `common/tasks/` has their arithmetic."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from common.config.component import Options

Threshold = Annotated[float, Field(gt=0, lt=1)]
TaskName = Literal["single-label", "multi-label", "regression"]


class SingleLabel(Options):
    """Every example has exactly one class."""

    name: Literal["single-label"] = "single-label"


class MultiLabel(Options):
    """Every example has any number of labels, also none."""

    name: Literal["multi-label"] = "multi-label"
    threshold: Threshold = 0.5
    """A label is predicted when its probability is at least this threshold."""
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    """Thresholds of single labels by name. Other labels have `threshold`."""


class Regression(Options):
    """Every example has one number for each target. The model learns (value - mean) / std of each target, so these
    options should be near the mean and the standard deviation of the training values."""

    name: Literal["regression"] = "regression"
    mean: dict[str, float] = Field(default_factory=dict)
    """Means by target. Other targets have the mean 0."""
    std: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Standard deviations by target. Other targets have the standard deviation 1."""


def _named(given: Any) -> Any:
    """A name alone stands for the task with its default options."""
    return {"name": given} if isinstance(given, str) else given


Task = Annotated[SingleLabel | MultiLabel | Regression, Field(discriminator="name"), BeforeValidator(_named)]
