"""CPC's loss: a prediction of a cell finds that cell among all cells of the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.precision import full_precision


@full_precision
def row_nce(predictions: Tensor, targets: Tensor, first: int = 0, scale: float = 0.1) -> Tensor:
    """Mean over predictions of ``-log(exp(s p.y_own) / sum_cells exp(s p.y))``.

    The prediction of image b at row i and column j belongs to row i + k and column j of its
    image's targets, where k = H - h. Inputs are used as given, not normalised.

    Args:
        predictions: (N, C, h, W), of the rows that have one k below them.
        targets: (M, C, H, W), of the global batch; M >= N + first.
        first: Place of the first prediction's image among the targets', rank * N.
        scale: Factor s of every score.

    Returns:
        A scalar.

    Source: CPC (1807.03748), equation 4, with the negatives and scale of CPC v2 (1905.09272).
    """
    images, _, rows, _ = predictions.shape
    cells = targets.movedim(1, -1)  # (M, H, W, C)
    places = torch.arange(cells[..., 0].numel(), device=cells.device).view(cells.shape[:3])
    own = places[first : first + images, -rows:]
    scores = scale * predictions.movedim(1, -1).flatten(0, 2) @ cells.flatten(0, 2).T
    return F.cross_entropy(scores, own.flatten())
