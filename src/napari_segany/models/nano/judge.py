"""How good the masks of a click are, judged from the answer as a whole.

The decoder scores each mask by itself. Whether the four masks of a click
agree, how decided they are, how large, and at which zoom they were drawn tells
more, so a small network turns all of this into the IoU that is predicted. It
learns after everything else, from answers that stay as they are
(`napari_segany.training.judge`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Predicted IoUs as near to 0 or 1 as this are as good as those.
EPSILON = 1e-4
#: Size, in cells at stride 4, at which nano likes to see an object.
USUAL_SIZE = 18.0


class Judge(nn.Module):
    """Logits and scores of an answer to better scores; before it is taught, to the same scores.

    Parameters
    ----------
    masks : int
        Masks of an answer.
    hidden : int
    """

    def __init__(self, masks: int, hidden: int = 48) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(9 + 2 * masks, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, logits: Tensor, scores: Tensor, level: int) -> Tensor:
        """Judge answers.

        Parameters
        ----------
        logits : (P, K, h, w)
        scores : (P, K)
            The decoder's logits of the predicted IoU.
        level : int
            Zoom at which the masks were drawn, see `View`.

        Returns
        -------
        (P, K) logits of the predicted IoU
        """
        return self.correct(figures(logits, scores, level), scores)

    def correct(self, shown: Tensor, scores: Tensor) -> Tensor:
        """From `figures` (P, K, D) and the scores they were made from; see `forward`."""
        return scores + self.mlp(shown.to(next(self.mlp.parameters()).dtype))[..., 0].float()


def figures(logits: Tensor, scores: Tensor, level: int) -> Tensor:
    """What the judge looks at, (P, K, 9 + 2K) float32, each figure of the order of one."""
    logits = logits.float()
    inside = logits > 0
    area = inside.sum(dim=(2, 3))
    soft = logits.sigmoid()
    steady = (logits > 1).sum(dim=(2, 3)) / (logits > -1).sum(dim=(2, 3)).clamp(min=1)
    decided = (2 * soft - 1).clamp(min=0).sum(dim=(2, 3)) / (soft.sum(dim=(2, 3)) + 1e-2)
    contrast = logits.abs().mean(dim=(2, 3)) / 10
    extent = torch.maximum(inside.any(dim=3).sum(dim=2), inside.any(dim=2).sum(dim=2))
    unusual = (extent.clamp(min=1) / USUAL_SIZE).log2() / 2
    outer = torch.zeros_like(inside[0, 0])
    outer[[0, -1]] = outer[:, [0, -1]] = True
    cut = (inside & outer).any(dim=3).any(dim=2).float()
    # The largest is that of a mask with itself: 1, or 0 where it is empty.
    overlaps = _overlaps(inside.flatten(2).float()).sort(dim=2, descending=True).values
    zoom = torch.full_like(cut, level / 2)
    alone = [scores.float() / 4, steady, decided, contrast, unusual, unusual.abs(), (area + 1).log() / 7, cut, zoom]
    which = torch.eye(logits.shape[1], device=logits.device).expand(len(logits), -1, -1)
    return torch.cat([torch.stack(alone, dim=-1), overlaps, which], dim=-1)


def _overlaps(inside: Tensor) -> Tensor:
    """IoU of every two masks of an answer, (P, K, N) to (P, K, K)."""
    common = inside @ inside.transpose(1, 2)
    area = common.diagonal(dim1=1, dim2=2)
    return common / (area[:, :, None] + area[:, None] - common).clamp(min=1)
