"""Several frozen encoders for one modality. Each site uses one of them.

The FedMVP paper leaves open how sites with different foundation models can train together. Here, the features of each
member have their own columns. The first layer that reads them is linear and thus has its own weights for each member;
all later layers are shared.

A site returns the columns of the members that it does not use unchanged. The update of a member's columns therefore
enters the mean with the share of the sites that use this member.
"""

from collections.abc import Sequence

from pydantic import Field, ValidationError, field_validator
from torch import Tensor
from torch.nn import functional as F

from common.config.component import Reference, build
from common.encoders.base import Encoder, EncoderOptions, FrozenEncoder, Tower
from common.errors import ConfigError


class MixedEncoder(FrozenEncoder):
    """One of the members, with additional columns for the features of all other members.

    chosen: the index of the member that is used. `alternatives` returns one encoder per member.
    """

    def __init__(self, members: Sequence[FrozenEncoder], chosen: int = 0) -> None:
        super().__init__(sum(member.width for member in members), max(member.length for member in members))
        self._members, self._chosen = tuple(members), chosen

    @property
    def member(self) -> FrozenEncoder:
        """The member that is used."""
        return self._members[self._chosen]

    @property
    def columns(self) -> slice:
        """The columns of the member that is used."""
        before = sum(member.width for member in self._members[: self._chosen])
        return slice(before, before + self.member.width)

    @property
    def tower(self) -> Tower:
        """The tower of the member that is used.

        Raises ModelError.
        """
        return self.member.tower

    def described(self) -> str:
        """A text with the member and the place of its columns."""
        widths = [member.width for member in self._members]
        return f"number {self._chosen} of widths {widths}, {self.length} tokens: {self.member.described()}"

    def extract(self, inputs: Tensor) -> Tensor:
        """The member's features in its own columns, [B, 1 + T, D], with zeros in the columns of the others."""
        features = self.member.to(self._place.device).extract(inputs)
        own = self.columns
        return F.pad(features, (own.start, self.width - own.stop, 0, 1 + self.length - features.shape[1]))

    def rest(self) -> None:
        """Free the device's memory that the member's network uses."""
        self.member.rest()

    def alternatives(self) -> list[Encoder]:
        """One encoder per member, in order."""
        return [MixedEncoder(self._members, index).to(self._place.device) for index in range(len(self._members))]


class Mixed(EncoderOptions):
    """Several frozen encoders. The site's name and the seed determine the encoder that a site uses. The server applies
    each of them to its own examples."""

    members: list[Reference] = Field(min_length=2, max_length=16)
    """The frozen encoders. Each entry has a name and options."""

    @field_validator("members")
    @classmethod
    def _known(cls, members: list[Reference]) -> list[Reference]:
        for member in members:
            if "name" not in member:
                raise ValueError("every member needs a name")
            try:
                build("encoder", member)
            except ConfigError as error:
                raise ValueError("; ".join(error.mistakes)) from None
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
                raise ValueError(f"{member['name']}: {wrong}") from None
        return members

    def bases(self) -> frozenset[str]:
        """The descriptions of all members, each with the place of its columns."""
        return frozenset(encoder.base for encoder in self.build().alternatives())

    def build(self) -> MixedEncoder:
        """The encoder. It uses the first member until a site chooses another one.

        Raises ConfigError when a member is not a frozen encoder.
        """
        members = [build("encoder", member).build() for member in self.members]
        if trained := [given["name"] for given, made in zip(self.members, members, strict=True)
                       if not isinstance(made, FrozenEncoder)]:  # fmt: skip
            raise ConfigError("encoder mixed", [f"{', '.join(trained)}: only frozen encoders can be mixed"])
        return MixedEncoder(members)
