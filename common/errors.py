"""The exceptions of the project, all of them expected: a command prints their message and no traceback.

FedmosaicError
├── ConfigError      an experiment that cannot be run as written; lists every mistake
├── DataError        data that are not what their reader takes: a data set's files, an example to predict
│   └── ShardError   a shard that cannot be used; names the shard
├── ModelError       a model, frozen or trained, whose weights are not here, or not what its loader reads
├── WireError        a message whose content is not what the receiver expects
├── PolicyError      what a site does not do or let go, by its own policy; or a policy that cannot be read
├── TrainingError    local training that cannot go on (diverged, nothing to train on)
├── RefusedError     a shard that a run would refuse
└── RunError         a run that ended without a model: too few clients, a process that died
"""


class FedmosaicError(Exception):
    """Base of everything this project raises on purpose."""


class ConfigError(FedmosaicError):
    """An experiment file with one or more mistakes."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.source, self.mistakes = source, mistakes
        lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{source}: {count}\n{lines}")

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, list[str]]]:
        """How it comes back from a worker process: by what it was made from, not by its message."""
        return ConfigError, (self.source, self.mistakes)


class DataError(FedmosaicError):
    """Files that are absent or not in the layout that the data set's loader reads; values that no encoder takes."""


class ShardError(DataError):
    """A shard that cannot be used."""


class ModelError(FedmosaicError):
    """A model that cannot be loaded."""


class WireError(FedmosaicError):
    """A message that does not hold what its receiver expects."""


class PolicyError(FedmosaicError):
    """What a site refuses because its own policy says so, or cannot be read."""


DIVERGED = "training diverged"
"""How the words of a `TrainingError` begin when a loss or a parameter is no longer finite."""


class TrainingError(FedmosaicError):
    """Local training that cannot go on."""


class RefusedError(FedmosaicError):
    """A shard that a run of an experiment would refuse."""


class RunError(FedmosaicError):
    """A run that ended without a result."""
