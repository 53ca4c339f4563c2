"""The similarity of clients' models, or of their changes, on a probe set, and the weights that follow from it.

S. Kornblith, M. Norouzi, H. Lee, G. Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019,
https://arxiv.org/abs/1905.00414 (linear CKA); L. Page, S. Brin, R. Motwani, T. Winograd, "The PageRank Citation
Ranking", 1999, http://ilpubs.stanford.edu:8090/422.
"""

from collections.abc import Sequence
from typing import Literal, assert_never

import networkx as nx
import torch
from torch import Tensor
from torch.nn import functional as F

Importance = Literal["degree", "pagerank", "degree-x-examples", "uniform", "median"]


BLOCK_BYTES = 2**28
"""Bytes of the models' Gram matrices that are in memory at a time."""


def linear_cka(representations: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """CKA_ij = <K_i, K_j> / (||K_i|| ||K_j||) with K_i = X_i X_i^T: [N, N] float64, from 0 to 1.

    representations: [N, P, R], from N models for the same P probes. X_i has L2-normalised rows and then centred
    columns. A model with the same representation for all probes, or with values that are not finite, has similarity 0
    to all other models.

    All pairs are computed at once. Each model's Gram matrix [P, P] is computed once, and one matrix product gives the
    inner products of all pairs. It is summed over blocks of rows that fit `block_bytes` (at least one row per model).
    """
    usable = representations.isfinite().all(2).all(1)
    values = torch.where(usable[:, None, None], representations.to(torch.float64), 0.0)
    rows = F.normalize(values, dim=2)
    rows -= rows.mean(dim=1, keepdim=True)
    models, probes, _ = rows.shape
    height = max(1, block_bytes // (models * probes * rows.element_size()))
    products = rows.new_zeros(models, models)
    for part in torch.split(rows, height, dim=1):
        grams = (part @ rows.transpose(1, 2)).flatten(1)
        products += grams @ grams.T
    products = (products + products.T) / 2  # a kernel may sum <K_i, K_j> and <K_j, K_i> in different orders
    norms = products.diagonal().sqrt().clamp(min=1e-12)
    return (products / (norms[:, None] * norms)).clamp(0, 1).fill_diagonal_(1)


def change_similarity(changes: Tensor) -> Tensor:
    """A_kj = max(0, <C_k, C_j> / (||C_k|| ||C_j||)): [N, N] float64, from 0 to 1, with A_kk = 1.

    changes: [N, P, R], the representation of P probes by N models minus that by the received model. Unlike CKA, the
    cosine has a sign: opposite changes have similarity 0. Columns are not centred, because most of the agreement of
    honest clients is in their means. A model whose change is 0 for all probes, or not finite, has similarity 0 to all
    other models.
    """
    usable = changes.isfinite().all(2).all(1)
    values = torch.where(usable[:, None, None], changes.to(torch.float64), 0.0)
    values = values.flatten(1)
    flat = F.normalize(values / values.abs().amax(1, keepdim=True).clamp(min=1e-300))  # or squares may overflow
    cosines = flat @ flat.T
    return ((cosines + cosines.T) / 2).clamp(0, 1).fill_diagonal_(1)


def client_scores(similarity: Tensor, examples: Sequence[int], importance: Importance) -> Tensor:
    """s_k >= 0: [N], from the similarity [N, N] and the numbers of examples n_k.

    degree: s_k = sum_j A_kj with A_kk = 1. degree-x-examples: n_k sum_j A_kj. pagerank: PageRank with damping 0.85 on
    the graph of A without A_kk, because with A_kk a model unlike all others would vote for itself. uniform: 1.
    median: the largest value that A_kj reaches for at least half of the other clients j. A minority of clients cannot
    raise the score of its members above their similarity to the majority. A single client has the score 1.
    """
    match importance:
        case "degree":
            return similarity.sum(1)
        case "degree-x-examples":
            return similarity.sum(1) * torch.tensor(examples, dtype=torch.float64)
        case "pagerank":
            graph = nx.from_numpy_array(similarity.clone().fill_diagonal_(0).numpy())
            ranks = nx.pagerank(graph, tol=1e-9, max_iter=1000)
            return torch.tensor([ranks[k] for k in range(len(examples))], dtype=torch.float64)
        case "uniform":
            return torch.ones(len(examples), dtype=torch.float64)
        case "median":
            count = len(examples)
            others = similarity[~torch.eye(count, dtype=torch.bool)].reshape(count, count - 1)
            return others.sort(1, descending=True).values[:, (count - 2) // 2] if count > 1 else similarity.sum(1)
        case _:
            assert_never(importance)


def client_weights(scores: Tensor, sharpness: float = 1.0) -> Tensor:
    """w_k = s_k^p / sum_j s_j^p: [N], from scores [N] of at least 0, with p the sharpness. Equal weights if all scores
    are 0."""
    raised = (scores / scores.max()) ** sharpness if scores.any() else torch.ones_like(scores)
    return raised / raised.sum()
