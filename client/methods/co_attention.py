"""FedAvg with co-attention fusion: plain local training of FedMVP's joint encoder. Compared with this baseline, FedMVP
shows the gain of its losses."""

from typing import ClassVar

from client.methods.fedavg import FedAvg


class CoAttention(FedAvg):
    """Cross entropy of the prediction."""

    model: ClassVar[str] = "joint"
