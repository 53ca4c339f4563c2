"""Run folders as runs of all kinds leave them, written by hand."""

import json
from pathlib import Path
from typing import Any


def figures(share: float, classes: int) -> dict[str, Any]:
    """The figures of a model that recognises this share of each class but the last, which has no examples."""
    recalls = [share] * (classes - 1) + [None]
    return {"accuracy": share, "macro_f1": share, "confidence": share / 2, "by_class": {"sensitivity": recalls},
            "examples": 50}  # fmt: skip


def write_run(
    folder: Path,
    rounds: int = 3,
    sites: tuple[str, ...] = ("client-0", "client-1"),
    classes: tuple[str, ...] = ("yes", "no", "stop"),
    modalities: tuple[str, ...] = ("audio", "image"),
    test: bool = True,
    **summary: Any,
) -> None:
    """Write the folder of a run that has ended. summary: what its summary says otherwise."""
    names = [*modalities, "+".join(modalities)] if len(modalities) > 1 else list(modalities)
    measured = {name: figures(0.25 + 0.25 * i, len(classes)) for i, name in enumerate(names)}
    client = {"modalities": list(modalities), "num_examples": 320, "losses": {"fused": 1.0}, "validation": measured,
              "bytes_up": 1000, "bytes_down": 2000,
              "seconds": {"load": 1.0, "evaluate": 0.2, "train": 3.0}}  # fmt: skip
    # Round 0 has no more than these three.
    lines: list[dict[str, Any]] = [
        {"format": 2, "round": 0, "test": measured if test else {}, "seconds": {"total": 0.4}}
    ]
    for number in range(1, rounds + 1):
        lines.append({"round": number, "test": measured if test else {}, "validation": measured,
                      "losses": {"fused": 1 / number, "proximal": 0.001}, "clients": dict.fromkeys(sites, client),
                      "failed": {"client-9": "too <slow>"} if number > 1 else {}, "bytes_up": 1000 * len(sites),
                      "bytes_down": 2000 * len(sites),
                      "seconds": {"exchange": 7.1, "aggregate": 0.01, "evaluate": 0.4, "total": 7.5}})  # fmt: skip
    about = {"name": "a-run", "status": "completed", "reason": "", "engine": "processes", "method": "fedcmi",
             "strategy": "fedcmi", "dataset": "digits-mini", "seed": 1, "rounds": rounds,
             "modalities": list(modalities), "classes": list(classes),
             "format": 2, "task": "single-label", "metric": "accuracy", "figures": measured, "intervals": {},
             "scores": {name: value["accuracy"] for name, value in measured.items()},
             "measured_on": "test" if test else "validation", "bytes_up": 1, "bytes_down": 1,
             "seconds": 61.0, "refused": {}, "sites": {name: {"modalities": list(modalities), "num_examples": 320,
             "unreadable": 0} for name in sites}}  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    (folder / "experiment.yaml").write_text("name: <a-run>\n")
    (folder / "summary.json").write_text(json.dumps(about | summary))
