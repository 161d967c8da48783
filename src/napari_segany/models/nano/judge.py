"""How good the masks of a click are, judged from all looks at it.

The decoder scores each mask by itself. How far it agrees with the other masks
and looks, how decided it is, how large, and at which zoom it was drawn tells
more (`figures`), so a small network turns all of this into the IoU that is
predicted. It learns after everything else, from answers that stay as they are
(`napari_segany.training.scores`).
"""

from __future__ import annotations

from torch import Tensor, nn


class Judge(nn.Module):
    """Figures of answers and the decoder's scores to better scores; before it is taught, to the same scores.

    Parameters
    ----------
    masks : int
        Masks of an answer.
    hidden : int
    """

    def __init__(self, masks: int, hidden: int = 48) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(15 + 2 * masks, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, shown: Tensor, scores: Tensor) -> Tensor:
        """Judge answers.

        Parameters
        ----------
        shown : (P, K, 15 + 2K)
            See `figures.describe`.
        scores : (P, K)
            The decoder's logits of the predicted IoU.

        Returns
        -------
        (P, K) logits of the predicted IoU
        """
        return scores + self.mlp(shown.to(next(self.mlp.parameters()).dtype))[..., 0].float()
