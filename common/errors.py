"""The exceptions of the project. All of them are expected: a command prints their message without a traceback.

FedmosaicError
├── ConfigError      an experiment has mistakes; the message lists all of them
├── DataError        data that the code cannot read: a data set's files, an example to predict
│   └── ShardError   a shard cannot be used; the message names the shard
├── ModelError       the weights of a frozen or trained model are absent, or their loader cannot read them
├── WireError        a message has other content than the receiver expects
├── PolicyError      a site's policy does not allow a request or an update, or the policy cannot be read
├── DeviceError      the device of a site or of the server is absent, full, or failed
├── TrainingError    local training cannot continue (it diverged, or there is nothing to train on)
├── RefusedError     a run would refuse the shard
└── RunError         a run ended without a model: too few clients, a process that died
"""


class FedmosaicError(Exception):
    """The base class of all exceptions that this project raises on purpose."""


class ConfigError(FedmosaicError):
    """An experiment file with one or more mistakes."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.source, self.mistakes = source, mistakes
        lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{source}: {count}\n{lines}")

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, list[str]]]:
        """Unpickle from the arguments of `__init__`, because the message alone is not enough. Worker processes return
        exceptions in this way."""
        return ConfigError, (self.source, self.mistakes)


class DataError(FedmosaicError):
    """Files are absent or do not have the layout that the data set's loader reads, or no encoder accepts a value."""


class ShardError(DataError):
    """A shard that cannot be used."""


class ModelError(FedmosaicError):
    """A model that cannot be loaded."""


class WireError(FedmosaicError):
    """A message with other content than its receiver expects."""


class PolicyError(FedmosaicError):
    """A refusal by the site's own policy, or a policy that cannot be read."""


class DeviceError(FedmosaicError):
    """A device that cannot compute. The process should end if it has used the device, because many faults of a GPU
    remain until then."""


DIVERGED = "training diverged"
"""The first words of the message of a `TrainingError` when a loss or a parameter is no longer finite."""


class TrainingError(FedmosaicError):
    """Local training that cannot continue."""


class RefusedError(FedmosaicError):
    """A shard that a run of an experiment would refuse."""


class RunError(FedmosaicError):
    """A run that ended without a result."""
