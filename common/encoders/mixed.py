"""Several frozen encoders of one modality, of which each site uses one.

Sites have different foundation models, which is a question the FedMVP paper leaves open. Here the features of each
member stand in columns of their own, so that the first layer that reads them, which is linear, has weights of its own
for every member, and everything behind it is shared.

A site that uses one member gives back the columns of the others as it got them, so that an update of a member's columns
enters the mean with the share of the sites that use it.
"""

from collections.abc import Sequence

from pydantic import Field, ValidationError, field_validator
from torch import Tensor
from torch.nn import functional as F

from common.config.component import Reference, build
from common.encoders.base import Encoder, EncoderOptions, FrozenEncoder, Tower
from common.errors import ConfigError


class MixedEncoder(FrozenEncoder):
    """One of the members, as if it had the columns of all.

    chosen: its number. The others are `alternatives`.
    """

    def __init__(self, members: Sequence[FrozenEncoder], chosen: int = 0) -> None:
        super().__init__(sum(member.width for member in members), max(member.length for member in members))
        self._members, self._chosen = tuple(members), chosen

    @property
    def member(self) -> FrozenEncoder:
        """The encoder that is used."""
        return self._members[self._chosen]

    @property
    def columns(self) -> slice:
        """Those of the member that is used."""
        before = sum(member.width for member in self._members[: self._chosen])
        return slice(before, before + self.member.width)

    @property
    def tower(self) -> Tower:
        """The member's.

        Raises ModelError.
        """
        return self.member.tower

    def described(self) -> str:
        """The member and where its columns are."""
        widths = [member.width for member in self._members]
        return f"number {self._chosen} of widths {widths}, {self.length} tokens: {self.member.described()}"

    def extract(self, inputs: Tensor) -> Tensor:
        """The member's features in its own columns: [B, 1 + T, D], zeros in those of the others."""
        features = self.member.extract(inputs)
        own = self.columns
        return F.pad(features, (own.start, self.width - own.stop, 0, 1 + self.length - features.shape[1]))

    def alternatives(self) -> list[Encoder]:
        """One for each member, in order."""
        return [MixedEncoder(self._members, index) for index in range(len(self._members))]


class Mixed(EncoderOptions):
    """Several frozen encoders, of which a site uses the one that its name and the seed decide; the server looks at its
    own examples through each."""

    members: list[Reference] = Field(min_length=2, max_length=16)
    """Frozen encoders, each a name with its options."""

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

    def build(self) -> MixedEncoder:
        """The encoder; until a site has chosen, the first member.

        Raises ConfigError for a member that is trained.
        """
        members = [build("encoder", member).build() for member in self.members]
        if trained := [given["name"] for given, made in zip(self.members, members, strict=True)
                       if not isinstance(made, FrozenEncoder)]:  # fmt: skip
            raise ConfigError("encoder mixed", [f"{', '.join(trained)}: only frozen encoders can be mixed"])
        return MixedEncoder(members)
