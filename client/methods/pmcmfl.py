"""PmcmFL: class prototypes mask missing modalities, and a contrast pulls features towards the prototypes.

G. Bao et al., "Multimodal Federated Learning with Missing Modality via Prototype Mask and Contrast", 2023,
https://arxiv.org/abs/2312.13508; "Incomplete Multimodal Federated Learning via Masking and Contrasting Prototypes",
IEEE TNNLS 2026, https://doi.org/10.1109/TNNLS.2026.3658522. The equations are those of the authors' public code,
https://github.com/Noirebao/Multimodal_Federated.

Differences from the paper:

- The model is late fusion, whose fused representation is the concatenation of the features. Its prototype is that of
  the modalities side by side.
- Vectors are scaled to length 1 before the contrast, because the features of other encoders have other lengths.
- Prototypes are means over the complete examples of the clients sampled in the last round. The paper averages those of
  the clients with weights for all of their examples, and a client without examples of a class keeps the received one.
- A class without a prototype has the mean over all classes. Until there are prototypes, missing slots have zeros
  instead of random numbers.
- A prediction that lacks a modality assumes each class in its own logit: `common.models.prototype_fill`. The public
  code contains no rule for the choice of the prototypes in such a prediction, so this one is the project's own.

With frozen encoders the contrasts have no gradient.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.losses import total
from client.methods.shared.prototypes import class_sums, write_sums
from common.models.prototype_fill import PrototypeFillModel
from common.types import Batch


class PmcmFL(Method[PrototypeFillModel, Round]):
    """Cross entropy of the fused prediction with masks, plus contrasts with the prototypes of all clients."""

    model: ClassVar[str] = "prototype-fill"
    counts_labels: ClassVar[bool] = True
    uses_criterion: ClassVar[bool] = True

    fusion_weight: float = Field(0.01, ge=0)
    """Weight f of the contrast of the fused representation. 0 switches the term off."""
    modality_weight: float = Field(1e-8, ge=0)
    """Weight v of the sum of the modalities' contrasts. The authors' value is close to 0. 0 switches the terms off."""
    temperature: float = Field(0.07, gt=0)
    """Temperature tau of the contrasts."""

    def begin_round(self, model: PrototypeFillModel, examples: Batch, now: Round) -> Round:
        """The round."""
        return now

    def loss(self, model: PrototypeFillModel, batch: Batch, context: Round) -> Mapping[str, Tensor]:
        """CE(u, y) + f NCE(x, c_y) + v sum_m NCE(z_m, c_m,y), with NCE by `contrast`, x = concat_m x_m the features
        with masks, and c = concat_m c_m. The contrasts are over the rows whose class has a prototype, and that of m
        over those that have m."""
        features = model.features(batch)
        filled = model.fill(features, batch)
        known = model.prototypes(model.modalities[0]).shares[batch.labels] > 0  # from complete rows: the same for all m
        targets = {m: model.fillers(m)[batch.labels] for m in model.modalities}
        terms = {"fused": context.criterion(model.fuse(filled), batch.labels)}
        if self.fusion_weight:
            whole, target = (torch.cat([part[m] for m in model.modalities], 1) for part in (filled, targets))
            terms["contrast"] = self.fusion_weight * self._contrast(whole, target, known)
        if self.modality_weight:
            parts = [self._contrast(features[m], targets[m], known & batch.has(m)) for m in model.modalities]
            terms["modality contrast"] = self.modality_weight * total(parts, batch)
        return terms

    def end_round(self, model: PrototypeFillModel, examples: Batch, context: Round) -> None:
        """Write the client's own sums over its complete examples."""
        complete = examples.complete(model.modalities)
        for m in model.modalities:
            own = class_sums(model, complete, m, model.fusion.out_features, context.batch_size)
            write_sums(model.prototypes(m), own, len(examples))

    def _contrast(self, vectors: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The contrast of some rows [B] bool, 0 without any."""
        return contrast(vectors[rows], targets[rows], self.temperature) if rows.any() else vectors.new_zeros(())


def contrast(vectors: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """NCE = -(1/n) sum_i log exp(s_ii / tau) / sum_j exp(s_ij / tau), with s_ij the cosine of vector i and target j.

    vectors, targets: [n, R], n >= 1. As in the authors' code, j runs over the targets of all rows, also those of the
    same class.
    """
    cosines = F.normalize(vectors) @ F.normalize(targets).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(cosines), device=cosines.device))
