"""The arithmetic of differential privacy, for server and client: clipping, Gaussian noise and their guarantee.

C. Dwork, A. Roth, "The Algorithmic Foundations of Differential Privacy", 2014, https://doi.org/10.1561/0400000042;
J. Dong, A. Roth, W. J. Su, "Gaussian Differential Privacy", JRSS B 2022, https://arxiv.org/abs/1905.02383.
"""

import hashlib
import math
import secrets
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from common.blocks import Params

SECRET_BYTES = 32


def norm(update: Mapping[str, Tensor]) -> float:
    """The L2 norm of all values of an update together. It does not depend on the order of the parameters, and it is
    infinite when a value is not finite."""
    largest = max((float(value.abs().max()) for value in update.values() if value.numel()), default=0.0)
    if not math.isfinite(largest):
        return math.inf
    # Squares of values above 1e154 or below 1e-154 overflow or underflow in float64, so such values are scaled first.
    unit = largest if largest and not 1e-100 < largest < 1e100 else 1.0
    squares = (float((value.to(torch.float64) / unit).square().sum()) for value in update.values())
    return unit * math.sqrt(math.fsum(squares))


def clip(update: Mapping[str, Tensor], bound: float) -> Params:
    """The update, in float64, scaled down to an L2 norm of `bound` when its norm is larger.

    An update with a value that is not finite has no direction, so all its values become zero. The norm of the result is
    thus never above `bound`.
    """
    length = norm(update)
    if not math.isfinite(length):
        return {name: torch.zeros_like(value, dtype=torch.float64) for name, value in update.items()}
    scale = min(1.0, bound / length) if length else 1.0
    return {name: value.to(torch.float64) * scale for name, value in update.items()}


def new_secret() -> bytes:
    """Random bytes of the operating system, from which noise is drawn. Knowing them allows removing the noise."""
    return secrets.token_bytes(SECRET_BYTES)


def noise(update: Mapping[str, Tensor], std: float, secret: bytes, *purpose: str | int) -> Params:
    """The update, in float64, with noise of N(0, std^2) added to every value. The noise is a function of the secret,
    the purpose and the parameter's name.

    Never use a purpose twice with one secret. Unlike in `common.seeding`, whose seed every site knows, the stream is
    cryptographic (SHAKE-256), so noise that is known for one purpose reveals nothing about the noise for another one.
    """
    return {
        name: value.to(torch.float64) + std * _normal(value, secret, *purpose, name) for name, value in update.items()
    }


def _normal(like: Tensor, secret: bytes, *purpose: str | int) -> Tensor:
    """Standard normal values in the shape of a tensor, by the inverse of the distribution function."""
    from scipy.special import ndtri  # here, so that runs without noise do not load it

    label = "\x1f".join(map(str, purpose)).encode()
    stream = hashlib.shake_256(secret + label).digest(8 * like.numel())
    uniform = ((np.frombuffer(stream, dtype="<u8") >> 11) + 0.5) * 2.0**-53  # inside (0, 1)
    return torch.from_numpy(ndtri(uniform)).reshape(like.shape)


def epsilon(releases: int, multiplier: float, delta: float) -> float:
    """The epsilon, at a delta, of a number of Gaussian releases. Each release may depend on the earlier ones.

    multiplier: standard deviation of the noise over the L2 sensitivity, the same in every release.

    The result is exact: T releases together equal one Gaussian release with mu = sqrt(T) / multiplier (Dong et al.,
    corollary 2 and corollary 1), so the bound of an accountant for subsampled releases is not needed.
    """
    mu = math.sqrt(releases) / multiplier
    if not releases or _delta(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # high: the bound of Rényi accounting
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _delta(middle, mu) <= delta else (middle, high)
    return high


def _delta(eps: float, mu: float) -> float:
    """The least delta at which a release that is mu-Gaussian private is (eps, delta) private."""
    from scipy.special import log_ndtr

    return math.exp(log_ndtr(mu / 2 - eps / mu)) - math.exp(eps + log_ndtr(-mu / 2 - eps / mu))
