"""Layers shared by the families: the same numbers as PyTorch's own, however tensors lie in memory."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.models.layers import long_attention
from napari_segany.models.layers.linear import Linear, linear
from napari_segany.models.sam2 import positions

WIDE = torch.arange(60.0).view(5, 12).sin()


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.ones(2, 3, 12), WIDE),
        (torch.ones(0, 12), WIDE),
        (torch.ones(12), WIDE),
        (torch.ones(12, 7).t(), WIDE),
        (torch.ones(1, 12).expand(7, -1), torch.ones(12, 5).cumsum(0).t()),
        (torch.ones(7, 20)[:, 2:8], WIDE[:, 3:9]),
    ],
    ids=["batch", "empty", "vector", "transposed", "transposed weight", "gaps between rows"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_linear_equals_that_of_pytorch(x: Tensor, weight: Tensor, dtype: torch.dtype) -> None:
    expected, expected_biased = F.linear(x, weight), F.linear(x, weight, weight[:, 0])
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.01}
    x, weight = x.to(dtype), weight.to(dtype)
    torch.testing.assert_close(linear(x, weight).float(), expected, **near)
    torch.testing.assert_close(linear(x, weight, weight[:, 0]).float(), expected_biased, **near)
    torch.testing.assert_close(linear(x, weight, activation="gelu").float(), F.gelu(expected), **near)
    torch.testing.assert_close(linear(x, weight, weight[:, 0], "relu").float(), F.relu(expected_biased), **near)


def test_linear_learns() -> None:
    layer = Linear(12, 5)
    layer(torch.ones(3, 12)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.sum() == 180


def test_attention_in_chunks_equals_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_attention, "SCORES_AT_ONCE", 30 * 7)  # at most seven of the queries
    monkeypatch.setattr(long_attention, "TILE", 8)
    monkeypatch.setattr(long_attention, "LONG", 30)
    monkeypatch.setattr(long_attention, "HAS_AMX", False)
    q, k, v = (torch.randn(2, count, 3, 8).transpose(1, 2) for count in (17, 30, 30))
    with torch.inference_mode():
        expected = F.scaled_dot_product_attention(q, k, v)
        one_head = long_attention.long_attention(q[:, 1], k[:, 1], v[:, 1, :, :5])
        half = long_attention.attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    torch.testing.assert_close(one_head, expected[:, 1, :, :5])
    torch.testing.assert_close(half.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("score", [-1e3, -70.0, 70.0, 1e3])
@torch.inference_mode()
def test_attention_takes_scores_of_any_size(score: float) -> None:
    q, v = torch.ones(1, 3, 4), torch.randn(1, 5, 2)
    k = torch.full((1, 5, 4), score / 2) + torch.randn(1, 5, 1)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(long_attention.long_attention(q, k, v), expected, atol=1e-3, rtol=1e-3)


def test_places_rotated_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, turn = torch.randn(2, 3 * 16, 8), positions.rotations(4, 8, torch.device("cpu"))
    whole = positions.rotate(x, turn)
    monkeypatch.setattr(positions, "TURNED_AT_ONCE", 2 * 16 * 8)
    torch.testing.assert_close(positions.rotate(x, turn), whole)
    torch.testing.assert_close(whole[:, 16:32].norm(dim=-1), x[:, 16:32].norm(dim=-1))
