"""The encoder that learns the law of the flows: against the one that knows it, its gradient, and what it finds."""

import numpy as np
import pytest
import torch

from pcl.errors import BadInputError
from pcl.losses import conditional_loss
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.learned_inverse import LearnedInverse, learned_inverse_of
from pcl.problems.streamfunction.linear_inverse import LinearInverse
from pcl.tilting import feature_maps

LAW = {"num_modes": 6, "num_positions": 101, "mean_path": 2.0}
KNOWN = StreamfunctionLaw(**LAW)


def encoder(**options):
    given = {"position_stride": 1, "time_step": KNOWN.time_step, "partner_std": KNOWN.standard_deviations.tolist()}
    return LearnedInverse((101, 2), 12, **given | options)


def pairs(count, seed=0):
    u = torch.from_numpy(KNOWN.sample(count, np.random.default_rng(seed)))
    return u / torch.from_numpy(KNOWN.standard_deviations), KNOWN.paths(u, 2)


def test_with_the_law_it_is_the_encoder_that_knows_it():
    _, paths = pairs(4)
    found = encoder(noise=0.1).double()
    with torch.no_grad():
        found.moved_frequencies.copy_(torch.from_numpy(KNOWN.frequencies) / found.frequency_rate)
    known = LinearInverse((101, 2), 12, position_stride=1, noise=0.1, time_step=KNOWN.time_step, law=LAW)
    torch.testing.assert_close(found(paths), known(paths), rtol=1e-9, atol=1e-9)
    deviations = torch.from_numpy(KNOWN.standard_deviations)
    torch.testing.assert_close(found.flows(paths), known(paths) * deviations, rtol=1e-9, atol=1e-9)
    assert learned_inverse_of(torch.nn.Sequential(torch.nn.Identity(), found)) is found
    assert learned_inverse_of(known) is None


def test_the_scale_of_deviations_is_told_as_noise():
    found, (_, paths) = encoder(noise=0.1).double(), pairs(3)
    before, deviations = found(paths), found.deviations
    with torch.no_grad():
        found.moved_deviations.add_(0.3)
        found.moved_noise.add_(0.3)
    torch.testing.assert_close(found(paths), before)
    with torch.no_grad():
        found.moved_noise.sub_(0.3)
    torch.testing.assert_close(found.deviations, deviations)
    assert found.noise.item() == pytest.approx(0.1 * np.exp(-0.3 * found.scale_rate))


def test_its_gradient_is_that_of_finite_differences():
    found = encoder(position_stride=20, frequency_rate=1.0, scale_rate=1.0, map_rate=1.0).double()
    _, paths = pairs(2)
    names = [name for name, _ in found.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in found.parameters()]

    def run(*values):
        return torch.func.functional_call(found, dict(zip(names, values, strict=True)), (paths,))

    assert torch.autograd.gradcheck(run, values)


def test_it_learns_the_frequencies_and_finds_flows_that_it_has_not_seen():
    found, (u, paths) = encoder(), pairs(640)
    unseen, their_paths = pairs(200, seed=1)
    optimizer = torch.optim.Adam(found.parameters(), 0.01)

    def recall():
        with torch.no_grad():
            scores = feature_maps(found(their_paths.float()), unseen.float(), "cosine")
        return ((scores[0] @ scores[1].T).argmax(1) == torch.arange(200)).float().mean()

    before = recall()
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + np.cos(np.pi * step / 60)) / 2
        chosen = slice(128 * (step % 5), 128 * (step % 5 + 1))
        features = feature_maps(u[chosen].float(), found(paths[chosen].float()), "cosine")
        optimizer.zero_grad()
        conditional_loss(*features, 0.1)[0].backward()
        optimizer.step()
    correlation = np.corrcoef(found.frequencies.detach(), KNOWN.frequencies)[0, 1]
    assert correlation > 0.9
    assert recall() > 0.99 > before
    assert found.noise < 2.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadInputError, match="takes paths"):
        LearnedInverse((4, 2), 12, time_step=0.1, partner_std=[1.0] * 12)
    with pytest.raises(BadInputError, match="not 5 numbers"):
        LearnedInverse((100, 2), 12, time_step=0.1, partner_std=[1.0] * 5)
