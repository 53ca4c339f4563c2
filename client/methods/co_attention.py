"""FedAvg with co-attention fusion: plain local training of FedMVP's joint encoder, the baseline that tells what its
losses add."""

from typing import ClassVar

from client.methods.fedavg import FedAvg


class CoAttention(FedAvg):
    """Cross entropy of the prediction."""

    model: ClassVar[str] = "joint"
