"""Augmentations of images: transforms against numpy, and what decides their random numbers."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.data.augmentation import (
    AUGMENTATIONS,
    Augment,
    AugmentSettings,
    check_augment,
    coloured,
    make_augment,
    moved,
    warped,
)
from pcl.encoders.build import build_model
from pcl.errors import BadInputError
from pcl.objective import make_loss
from pcl.settings import check_settings
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train, train_step
from pcl.workers import OneWorker
from tests.processes import run_workers

EVERYTHING = AugmentSettings(u=list(AUGMENTATIONS), v=list(AUGMENTATIONS))
ONE, NONE = torch.ones(1), torch.zeros(1, 2)


class Share(OneWorker):
    """One of several workers, as an augmentation sees it."""

    def __init__(self, worker_rank, num_workers):
        self.worker_rank, self.num_workers = worker_rank, num_workers


def images(*shape, dtype=torch.uint8, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape)).to(dtype)


# transforms


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
@pytest.mark.parametrize("size", [6, 7])
def test_quarter_turns_are_exact(quarters, size):
    one = images(1, 3, size, size)
    found = warped(one, 90.0 * quarters * ONE, ONE, NONE)
    assert torch.equal(found, torch.rot90(one, quarters, (2, 3)))
    precise = warped(one.double(), 90.0 * quarters * ONE, ONE, NONE)
    torch.testing.assert_close(precise, torch.rot90(one, quarters, (2, 3)).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("transform", ["warped", "moved"])
@given(st.integers(-9, 9), st.integers(-9, 9))
@settings(deadline=None, max_examples=25)
def test_shifts_by_whole_pixels_are_exact_and_bring_in_the_edge(transform, down, right):
    one = images(1, 2, 5, 8)
    padded = np.pad(one.numpy(), ((0, 0), (0, 0), (9, 9), (9, 9)), mode="edge")
    wanted = torch.from_numpy(padded[:, :, 9 - down : 14 - down, 9 - right : 17 - right])
    offset = torch.tensor([[down, right]])
    found = warped(one, 0 * ONE, ONE, offset) if transform == "warped" else moved(one, -offset)
    assert torch.equal(found, wanted)


@given(st.floats(-180, 180), st.floats(0.5, 2), st.floats(-3, 3), st.floats(-3, 3))
@settings(deadline=None, max_examples=25)
def test_a_warp_is_a_bilinear_interpolation_pixel_by_pixel(turn, scale, down, right):
    one = images(1, 1, 5, 7, dtype=torch.float64)
    found = warped(one, turn * ONE, scale * ONE, torch.tensor([[down, right]], dtype=torch.float64))[0, 0]
    picture, wanted = one[0, 0].numpy(), np.zeros((5, 7))
    angle = math.radians(torch.tensor(turn).item())
    for i in range(5):
        for j in range(7):
            east, north = j - 3 - right, -(i - 2 - down)
            x = (math.cos(angle) * east + math.sin(angle) * north) / torch.tensor(scale).item()
            y = (-math.sin(angle) * east + math.cos(angle) * north) / torch.tensor(scale).item()
            row, column = min(max(2 - y, 0), 4), min(max(x + 3, 0), 6)
            top, left = min(int(row), 3), min(int(column), 5)
            a, b = row - top, column - left
            wanted[i, j] = (1 - a) * ((1 - b) * picture[top, left] + b * picture[top, left + 1]) + a * (
                (1 - b) * picture[top + 1, left] + b * picture[top + 1, left + 1]
            )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int16])
def test_colours_are_those_of_numpy(dtype):
    some = images(2, 3, 4, 5, dtype=dtype)
    gain, brightness = 1 + torch.rand(2, 3) / 2, torch.rand(2, 3) - 0.5
    x = some.numpy().astype(np.float64)
    mean, deviation = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    wanted = mean + (x - mean) * gain.numpy()[..., None, None] + brightness.numpy()[..., None, None] * deviation
    found = coloured(some, gain, brightness)
    assert found.dtype == dtype
    if dtype == torch.uint8:
        wanted = wanted.clip(0, 255)
    np.testing.assert_allclose(found.double(), wanted, rtol=1e-5, atol=1e-3 if dtype.is_floating_point else 0.51)


def test_a_white_background_stays_white_however_an_image_is_moved():
    white = torch.full((40, 3, 8, 9), 255, dtype=torch.uint8)
    chosen = AugmentSettings(u=["flip", "crop", "rotate", "scale", "shift"], rotate_deg=180, scale=1, shift=1)
    assert torch.equal(Augment(chosen, 0)(white, white, 0, OneWorker())[0], white)


def test_a_flip_is_exact_and_of_about_half_of_the_images():
    some = images(400, 4, 5)
    found, untouched = Augment(AugmentSettings(u=["flip"]), 0)(some, some, 0, OneWorker())
    flipped = [torch.equal(one, before.flip(1)) for one, before in zip(found, some, strict=True)]
    assert all(torch.equal(found[i], some[i]) for i in range(400) if not flipped[i])
    assert 160 < sum(flipped) < 240
    assert untouched is some


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(6, 7), (1, 6, 7), (3, 6, 7)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float16, torch.float32, torch.float64])
def test_each_augmentation_keeps_shape_and_dtype_and_changes_images(name, shape, dtype):
    some = images(8, *shape, dtype=dtype)
    before = some.clone()
    found, _ = Augment(AugmentSettings(u=[name]), 0)(some, some, 0, OneWorker())
    assert found.shape == some.shape
    assert found.dtype == dtype
    assert not torch.equal(found, some)
    assert torch.equal(some, before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_least_of_an_augmentation_is_none(name):
    some = images(8, 3, 6, 7)
    least = AugmentSettings([name], [name], rotate_deg=0, scale=0, shift=0, crop_padding=0, colour=0)
    found, _ = Augment(least, 0)(some, some, 0, OneWorker())
    assert torch.equal(found, some) == (name != "flip")


# randomness


def test_seed_and_step_decide_and_both_sides_are_drawn_apart():
    some = images(16, 3, 8, 8)

    def at(seed, step):
        return Augment(EVERYTHING, seed)(some, some, step, OneWorker())

    (u, v), again = at(5, 7), at(5, 7)
    assert torch.equal(u, again[0])
    assert torch.equal(v, again[1])
    assert not torch.equal(u, v)
    for other in (at(5, 8), at(6, 7)):
        assert not torch.equal(u, other[0])


def test_what_is_drawn_for_one_augmentation_does_not_depend_on_others():
    some = images(16, 3, 8, 8)
    flips = Augment(AugmentSettings(u=["flip"]), 0)(some, some, 4, OneWorker())[0]
    still = AugmentSettings(u=["flip", "colour", "rotate"], colour=0, rotate_deg=0)
    assert torch.equal(Augment(still, 0)(some, some, 4, OneWorker())[0], flips)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("num_workers", [1, 2, 4, 8])
def test_the_shares_of_workers_are_rows_of_the_global_batch(num_workers, dtype):
    u, v = images(16, 3, 8, 8, dtype=dtype), images(16, 6, 6, dtype=dtype)
    augment = Augment(EVERYTHING, 3)
    whole = augment(u, v, 2, OneWorker())
    rows = zip(u.chunk(num_workers), v.chunk(num_workers), strict=True)
    shares = [augment(*part, 2, Share(rank, num_workers)) for rank, part in enumerate(rows)]
    for side in (0, 1):
        assert torch.equal(torch.cat([share[side] for share in shares]), whole[side])


SPEC = {
    "embedding_dim": 4,
    "encoder_u": {"kind": "convnet", "shape": [3, 8, 8], "width": 16, "scale_factor": 1 / 255},
    "encoder_v": {"kind": "convnet", "shape": [8, 8], "width": 16, "scale_factor": 1 / 255},
    "tilting": "cosine",
    "temperature": {"initial": 0.5, "learned": True, "minimum": 0.01, "maximum": 10.0},
    "dtype": "float64",
}
OPTIMISATION = Optimisation(num_steps=8, learning_rate=0.01)


def trained(workers, up_to=8, state=None):
    """Return the state of a training of convnets, with its losses."""
    model = build_model(SPEC, seed=1)
    state = state or TrainingState(model, make_optimizer(model, OPTIMISATION))
    augment, losses = make_augment(EVERYTHING, seed=9), []
    while state.step < up_to:
        rows = images(16, 4, 8, 8, seed=state.step).chunk(workers.num_workers)[workers.worker_rank]
        found = train_step(state, (rows[:, :3], rows[:, 3]), make_loss("joint"), OPTIMISATION, workers, augment=augment)
        losses.append(found["loss"].item())
    return state, losses


def weights_on_workers():
    from pcl.train.collectives import make_workers

    return trained(make_workers())[0].model.state_dict()


def test_the_number_of_workers_changes_no_training():
    alone = trained(OneWorker())[0].model.state_dict()
    for found in run_workers(weights_on_workers, 4):
        for name, value in alone.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-10)


def test_a_training_that_goes_on_is_one_that_never_stopped():
    whole, _ = trained(OneWorker())
    half, _ = trained(OneWorker(), up_to=4)
    model = build_model(SPEC, seed=2)
    again = TrainingState(model, make_optimizer(model, OPTIMISATION), step=4)
    again.model.load_state_dict(half.model.state_dict())
    again.optimizer.load_state_dict(copy.deepcopy(half.optimizer.state_dict()))
    trained(OneWorker(), state=again)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


def test_a_training_hands_its_step_to_the_augmentation():
    model, steps = build_model(SPEC), []

    def augment(u, v, step, workers):
        steps.append(step)
        return u, v

    some = images(8, 4, 8, 8)
    train(
        TrainingState(model, make_optimizer(model, OPTIMISATION), step=5),
        [(some[:, :3], some[:, 3])] * 3,
        make_loss("joint"),
        OPTIMISATION,
        workers=OneWorker(),
        global_batch=8,
        log_every=1,
        checkpoint_every=10,
        log=lambda *_: None,
        report=lambda *_: None,
        augment=augment,
    )
    assert steps == [5, 6, 7]


# settings


def test_there_is_none_unless_one_is_chosen():
    assert make_augment(AugmentSettings(), 0) is None
    check_augment(AugmentSettings(), ("text", "labels"), ((5,), ()))
    check_augment(EVERYTHING, ("image", "image"), ((5, 6), (3, 5, 6)))


@pytest.mark.parametrize(
    ("chosen", "form", "shape", "message"),
    [
        ("blur", "image", (8, 8), r"data.augment.v: 'blur' is not known; choose among flip, crop"),
        ("flip", "text", (64,), r"data.augment.v=\[flip\] and v is text: only images"),
        ("flip", "numbers", (8, 8), r"v is numbers: only images .* leave data.augment.v out"),
        ("flip", "image", (2, 3, 8, 8), r"v is images of shape \(2, 3, 8, 8\): only images"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(chosen, form, shape, message):
    with pytest.raises(BadInputError, match=message):
        check_augment(AugmentSettings(v=[chosen]), ("numbers", form), ((5,), shape))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rotate_deg": -1.0}, "data.augment.rotate_deg=-1.0: it must be at least 0"),
        ({"rotate_deg": 181.0}, "must be at most 180"),
        ({"scale": -0.1}, "scale=-0.1: it must be at least 0"),
        ({"scale": 11.0}, "must be at most 10"),
        ({"shift": 1.1}, "shift=1.1: it must be at most 1"),
        ({"crop_padding": -1}, "crop_padding=-1: it must be at least 0"),
        ({"colour": 1.1}, "colour=1.1: it must be at most 1"),
    ],
)
def test_magnitudes_have_bounds(chosen, message):
    with pytest.raises(BadInputError, match=message):
        check_settings(AugmentSettings(**chosen), "data.augment.")
