"""ClipLoss written out, where open_clip is not installed, against open_clip's."""

import torch

from pcl.benchmark.costs import clip_loss, load_clip_loss
from tests.reference import value_and_gradients


def test_clip_loss_written_out_is_that_of_open_clip():
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(9, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    scale = torch.tensor(3.0, dtype=torch.float64)
    theirs = load_clip_loss()()
    found, expected = (value_and_gradients(loss, u, v, scale) for loss in (clip_loss, theirs))
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)
