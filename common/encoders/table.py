"""An encoder for rows of tables: numbers and categories, each of which may be missing."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from common.columns import MOST_COLUMNS, AgreedColumns, Category, Number, ScaledNumber, name_mistakes
from common.config.component import Options
from common.encoders.base import Encoder, EncoderOptions
from common.errors import ConfigError
from common.media.table_row import TableRow
from common.media.values import Raw

MISSING, UNKNOWN, FIRST = 0, 1, 2
"""Numbers of categories: a missing cell, a category that is not agreed, and the first agreed category."""


class TableEncoder(Encoder):
    """Numbers are standardised, categories have learned embeddings. Both go through a small network.

    For each number, the network also reads whether it is known, so its first layer learns a value for a missing number.
    A missing category and an unknown category have embeddings of their own.
    """

    def __init__(self, options: "Table") -> None:
        super().__init__()
        if options.columns is None:
            raise ConfigError("encoder table", ["columns: the federation has not agreed on the columns yet"])
        self.options, self.width, self.augmentation = options, options.width, options.augment
        self.columns = dict(sorted(options.columns.items()))
        self.numbers = {name: column for name, column in self.columns.items() if isinstance(column, ScaledNumber)}
        self.categories = {name: column for name, column in self.columns.items() if isinstance(column, Category)}
        sizes = [FIRST + len(column.values) for column in self.categories.values()]
        self._place = {
            name: {value: FIRST + place for place, value in enumerate(sorted(column.values))}
            for name, column in self.categories.items()
        }
        self.register_buffer("starts", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        self.embedding = nn.Embedding(sum(sizes), options.embedding) if sizes else None
        self.net = _network(2 * len(self.numbers) + len(sizes) * options.embedding, options.hidden, options.width)

    starts: Tensor
    """[categories]: the row of the embeddings at which each column begins."""

    def prepare(self, raw: Raw) -> Tensor:
        """[2 N + C] float32 for N columns of numbers and C columns of categories, each in alphabetical order: the
        standardised numbers, 0 where missing; 1 where a number is known; the number of each category, 0 where missing.

        Raises ValueError for a value that is not a row, for cells of the wrong type, and for a row without a cell of
        these columns.
        """
        cells = self._read(raw)
        prepared = self.blank()
        for place, (name, column) in enumerate(self.numbers.items()):
            number = cells.get(name)
            if isinstance(number, float) and column.plausible(number):
                far = (number - column.mean) / column.std
                prepared[place] = max(-self.options.clip, min(far, self.options.clip))
                prepared[len(self.numbers) + place] = 1
        for place, name in enumerate(self.categories, start=2 * len(self.numbers)):
            if name in cells:
                prepared[place] = self._place[name].get(str(cells[name]), UNKNOWN)
        return prepared

    def _read(self, raw: Raw) -> dict[str, float | str]:
        """The cells of the agreed columns: numbers, and names of categories."""
        if not isinstance(raw, TableRow):
            raise ValueError(f"a row of a table is needed, not {type(raw).__name__}")
        cells, mistakes = dict[str, float | str](), list[str]()
        for name in sorted(raw.cells.keys() & self.columns.keys()):
            try:
                cells[name] = self.columns[name].read(raw.cells[name])
            except ValueError as error:
                mistakes.append(f"{name}: {error}")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        if not cells:
            raise ValueError(f"the row has no cell in any of the columns {', '.join(self.columns)}")
        return cells

    def notes(self, raw: Raw) -> list[str]:
        """The cells that `prepare` does not use, by column: numbers outside the range, unknown categories, columns that
        are not agreed. The cells themselves are not in the texts, because the texts may leave the site."""
        assert isinstance(raw, TableRow)
        cells = self._read(raw)
        far = [n for n, c in self.numbers.items() if isinstance(v := cells.get(n), float) and not c.plausible(v)]
        unknown = [name for name in self.categories if name in cells and cells[name] not in self._place[name]]
        return [
            *(f"column {name}: a number outside {self.numbers[name].range}, treated as missing" for name in far),
            *(f"column {name}: a category that is not agreed, treated as unknown" for name in unknown),
            *(
                f"column {name} is not used, because it is not agreed"
                for name in raw.cells.keys() - self.columns.keys()
            ),
        ]

    def check_columns(self, columns: Mapping[str, Number | Category]) -> list[str]:
        """Columns of a site whose type or unit differs from the agreed one."""
        if not columns:
            return ["the shard does not describe its columns, columns.json is needed"]
        both = sorted(columns.keys() & self.columns.keys())
        if not both:
            return [f"none of its columns is agreed; agreed: {', '.join(self.columns)}"]
        pairs = ((name, columns[name].unlike(self.columns[name]), self.columns[name]) for name in both)
        return [f"column {name}: {here} here, {_agreed(column)}" for name, here, column in pairs if here]

    def blank(self) -> Tensor:
        """[2 N + C] of zeros: every cell is missing."""
        return torch.zeros(2 * len(self.numbers) + len(self.categories))

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, 2 N + C] -> [B, D]."""
        parts = [inputs[:, : 2 * len(self.numbers)]]
        if self.embedding is not None:
            rows = inputs[:, 2 * len(self.numbers) :].long() + self.starts
            parts.append(self.embedding(rows).flatten(1))
        features: Tensor = self.net(torch.cat(parts, dim=1))
        return features

    def augment(self, prepared: Tensor) -> Tensor:
        """[2 N + C] float32."""
        chosen, count = self.options.augment, len(self.numbers)
        if chosen is None:
            return prepared
        keep = torch.rand(len(self.columns)) >= chosen.cell_dropout
        known = prepared[count : 2 * count] * keep[:count]
        noisy = prepared[:count] + chosen.jitter * torch.randn(count)
        return torch.cat([noisy * known, known, prepared[2 * count :] * keep[count:]])


def _network(inputs: int, hidden: Sequence[int], width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.LayerNorm(size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, width))


def _agreed(column: ScaledNumber | Category) -> str:
    if isinstance(column, Category):
        return "agreed is a category"
    return f"agreed is a number with the unit {column.unit}" if column.unit else "agreed is a number without a unit"


class TableAugmentation(Options):
    """Random variants of rows in training."""

    cell_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability with which each cell becomes a missing cell, so that the model learns to predict without it."""
    jitter: float = Field(0.0, ge=0, le=10)
    """Standard deviation of the noise that is added to every known number, in standard deviations of its column."""


class Table(EncoderOptions):
    """Rows of a table with missing cells pass through a small network that is trained from scratch."""

    of_network: ClassVar[frozenset[str]] = frozenset({"width", "hidden", "embedding", "augment"})

    columns: AgreedColumns | None = Field(None, min_length=1, max_length=MOST_COLUMNS)
    """The columns by name: `{type: number, unit, range, mean, std}` or `{type: category, values}`. `null`: the sites
    describe their columns before the first round, and the server fills this option in."""
    clip: float = Field(10.0, gt=0, le=1e6)
    """Largest distance of a number from the mean, in standard deviations. Larger distances are reduced to it."""
    embedding: int = Field(8, ge=1, le=1024)
    """Number of learned values for each category."""
    hidden: list[int] = Field(default_factory=lambda: [64], max_length=8)
    """Widths of the hidden layers."""
    width: int = Field(64, ge=1, le=16_384)
    """Number of features D."""

    augment: TableAugmentation | None = None
    """Random variants of the rows in training. `null`: none."""

    @field_validator("columns")
    @classmethod
    def _no_label(cls, columns: AgreedColumns | None) -> AgreedColumns | None:
        if mistakes := name_mistakes(columns or {}):
            raise ValueError("; ".join(mistakes))
        return columns

    @field_validator("hidden")
    @classmethod
    def _possible(cls, hidden: list[int]) -> list[int]:
        if not all(1 <= size <= 16_384 for size in hidden):
            raise ValueError(f"a width must be from 1 to 16384, not {hidden}")
        return hidden

    @property
    def lacks_columns(self) -> bool:
        """Whether the federation must still agree on the columns."""
        return self.columns is None

    def build(self) -> TableEncoder:
        """A new encoder with random weights.

        Raises ConfigError while the columns are not agreed.
        """
        return TableEncoder(self)
