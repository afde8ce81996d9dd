"""Contrastive losses over batches in which an item may have many positives."""

import torch
from torch import Tensor


def info_nce(scores: Tensor, positives: Tensor) -> Tensor:
    """Return the mean loss of telling each row's positives, and each column's, from all others of the batch.

    Args:
        scores: Cosines divided by the temperature, shape (..., n, m).
        positives: True where row and column belong together, shape (n, m); rows and columns without any do not count.

    Source:
        van den Oord et al., "Representation learning with contrastive predictive coding", 2018; in both directions as
        in Radford et al., "Learning transferable visual models from natural language supervision" (CLIP), 2021; many
        positives as in Khosla et al., "Supervised contrastive learning", NeurIPS 2020 (L_out).
    """
    return (_one_way(scores, positives) + _one_way(scores.transpose(-1, -2), positives.T)) / 2


def sigmoid_loss(scores: Tensor, positives: Tensor, *, bias: Tensor) -> Tensor:
    """Return the loss of telling for each pair by itself whether it belongs together, summed over columns.

    Args:
        scores: Cosines divided by the temperature, shape (..., n, m).
        positives: True where row and column belong together, shape (n, m).
        bias: Added to the scores; learnt, far below 0 at first, since few pairs belong together.

    Source:
        Zhai et al., "Sigmoid loss for language image pre-training" (SigLIP), ICCV 2023.
    """
    signs = torch.where(positives, 1.0, -1.0)
    return -torch.nn.functional.logsigmoid(signs * (scores + bias)).sum(dim=-1).mean()


def _one_way(scores: Tensor, positives: Tensor) -> Tensor:
    counts = positives.sum(dim=1)  # (n,)
    likelihoods = scores.log_softmax(dim=-1)
    of_positives = torch.where(positives, likelihoods, 0.0).sum(dim=-1)  # (..., n)
    has_any = counts > 0
    return -(of_positives[..., has_any] / counts[has_any]).mean()
