"""Figures in readable form: the names of metrics and the form of their values. Knows the metrics of this project; other
metrics appear with their key."""

from typing import Any

TITLES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "confidence": "confidence",
    "label_accuracy": "label accuracy",
    "macro_f1": "macro-F1",
    "mae": "MAE",
    "micro_f1": "micro-F1",
    "pearson": "Pearson's r",
    "r2": "R²",
    "rmse": "RMSE",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "weighted_f1": "weighted F1",
}
IN_PERCENT = {
    "accuracy",
    "balanced_accuracy",
    "calibration_error",
    "confidence",
    "label_accuracy",
    "sensitivity",
    "specificity",
}
MAIN: dict[str, str] = {"single-label": "accuracy", "multi-label": "auroc", "regression": "r2"}
"""By task, the metric that stands for a model where only one figure fits."""
LEADING: dict[str, tuple[str, ...]] = {
    "single-label": ("accuracy", "macro_f1", "auroc", "calibration_error"),
    "multi-label": ("auroc", "average_precision", "macro_f1", "calibration_error"),
    "regression": ("r2", "mae", "rmse", "pearson"),
}
"""By task, the metrics of the tables of a run, with the main one first."""
NOT_SHARES = {"brier", "mae", "rmse", "r2", "pearson"}
"""Metrics that tables of several runs do not show in percent."""
UNKNOWN = "–"


def title(key: str) -> str:
    """The name of a metric."""
    return TITLES.get(key, key.replace("_", " "))


def heading(key: str) -> str:
    """The name of a metric with a capital first letter."""
    named = title(key)
    return named[:1].upper() + named[1:]


def value(key: str, figure: Any) -> str:
    """A figure of a metric: shares in percent, others with three digits; a dash when it is unknown."""
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return UNKNOWN
    return f"{figure:.1%}" if key in IN_PERCENT else f"{figure:.3f}"
