"""One step of local training: the loss in the chosen precision, its gradients, and the optimiser.

Mixed precision: P. Micikevicius et al., "Mixed Precision Training", ICLR 2018, https://arxiv.org/abs/1710.03740. The
weights stay float32. With float16, the loss is scaled, so that small gradients do not become zero.
"""

import gc
import logging
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from client.methods.base import Method
from client.methods.shared.criterion import Criterion
from client.optimizer import clip_gradients, set_rate
from common.config.experiment import Train
from common.errors import DeviceError
from common.hardware.device import described, release
from common.hardware.faults import is_out_of_memory
from common.models.base import MultimodalModel
from common.types import Batch

log = logging.getLogger(__name__)
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PARTS = 2
"""The number of parts of a batch that needs too much memory as a whole."""


class Step:
    """The steps of one round. After an out-of-memory error, this step and all later ones compute the gradients in two
    parts and add them."""

    def __init__(
        self,
        model: MultimodalModel,
        method: Method[MultimodalModel, object],
        context: object,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        settings: Train,
    ) -> None:
        self._model, self._method, self._context, self._criterion = model, method, context, criterion
        self._optimizer, self._clip_norm = optimizer, settings.clip_norm
        self._device, self._type = model.device, TYPES.get(settings.precision)
        self._scaler = GradScaler(self._device.type, enabled=settings.precision == "float16")
        self._parts = 1

    def take(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """Change the parameters by one step with a learning rate. Returns the terms of the loss, which stay on the
        device.

        Raises DeviceError when the memory does not suffice for half of the batch.
        """
        try:
            terms = self._gradients(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            terms = None
        if terms is None:  # outside the handler, because the exception keeps the tensors of the failed step alive
            self._halve(batch)
            return self.take(batch, rate)
        self._method.after_backward(self._model, self._context)
        if self._clip_norm is not None:  # after the method's changes, so that they cannot exceed the norm either
            clip_gradients(self._optimizer, self._clip_norm)
        set_rate(self._optimizer, rate)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return terms

    def _gradients(self, batch: Batch) -> dict[str, Tensor]:
        self._optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        for part in self._divided(batch):
            share = len(part) / len(batch)
            with self._criterion.part(part.labels, batch.labels):
                terms = self._terms(part)
            total = torch.stack(list(terms.values())).sum()
            self._scaler.scale(total * share if share < 1 else total).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                value = term.detach() * share if share < 1 else term.detach()
                sums[name] = sums[name] + value if name in sums else value
        self._scaler.unscale_(self._optimizer)
        return sums

    def _terms(self, batch: Batch) -> Mapping[str, Tensor]:
        if self._type is None:
            return self._method.loss(self._model, batch, self._context)
        with torch.autocast(self._device.type, self._type):
            terms = self._method.loss(self._model, batch, self._context)
        return {name: term.float() for name, term in terms.items()}

    def _divided(self, batch: Batch) -> list[Batch]:
        """The parts whose gradients are computed one after the other."""
        if self._parts == 1:
            return [batch]
        rows = torch.arange(len(batch)).to(batch.device)
        return [batch.rows(part) for part in rows.tensor_split(self._parts) if len(part)]

    def _halve(self, batch: Batch) -> None:
        """Use smaller parts from now on.

        Raises DeviceError when the parts are already halves.
        """
        self._optimizer.zero_grad()
        gc.collect()
        release(self._device)
        where = "the machine" if self._device.type == "cpu" else described(self._device)
        if self._parts == PARTS:
            raise DeviceError(
                f"the memory of {where} is full, even with half a batch ({len(batch)} examples): lower "
                "train.batch_size, end other programs on this device, or choose another one with --device"
            )
        log.warning("the memory of %s is full: each batch is computed in two halves from now on", where)
        self._parts = PARTS
