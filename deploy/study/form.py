"""The form of figures in tables of several runs: shares in percent with one digit, others as they are with three."""

from dataclasses import dataclass

from common.words.figures import NOT_SHARES


@dataclass(frozen=True)
class Form:
    """The factor and the digits of a measure."""

    factor: float
    digits: int

    @classmethod
    def of(cls, name: str) -> "Form":
        """The form of a measure by its name, e.g. "accuracy" or "rmse:audio"."""
        return cls(1, 3) if name.partition(":")[0] in NOT_SHARES else cls(100, 1)

    @property
    def percent(self) -> bool:
        """Whether values are in percent, and differences in points."""
        return self.factor != 1

    def number(self, value: float, sign: str = "") -> str:
        """A value. sign: "+" for differences."""
        return f"{self.factor * value:{sign}.{self.digits}f}"
