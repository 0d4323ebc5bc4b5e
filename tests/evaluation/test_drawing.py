"""Drawings by form: the pixels and the words that were stored are the ones that are shown."""

import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from pcl.evaluation.drawing import FIRST, by_form, images, vectors
from pcl.evaluation.embeddings import _sprite, choose_embeddings
from pcl.evaluation.written import drawn_text, fitted_text, text_of

LENGTH = 40


def axes_of(number):
    return Figure(figsize=(1.6 * number, 1.6)).subplots(1, number, squeeze=False)[0]


def drawn(drawing, number):
    axes = axes_of(number)
    drawing.draw(axes, torch.arange(number))
    return axes


def stored(*sentences):
    rows = [sentence.encode()[:LENGTH].ljust(LENGTH, b"\0") for sentence in sentences]
    return torch.from_numpy(np.stack([np.frombuffer(row, np.uint8) for row in rows]))


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 40)])
def test_vectors_have_axes_and_say_only_what_is_there(shape):
    items = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    drawing, components = vectors(items), items[0].numel()
    axes = drawn(drawing, 3)
    for number, (axis, item) in enumerate(zip(axes, items, strict=True)):
        np.testing.assert_array_equal(axis.lines[-1].get_ydata(), item.flatten())
        assert len(axis.lines) == 1 + (number > 0)
        assert axis.get_xticks().tolist() == sorted({0, components - 1})
        assert axis.get_ylim() == axes[0].get_ylim()
    assert [float(tick.get_text().replace("\N{MINUS SIGN}", "-")) for tick in axes[0].get_yticklabels()] == [
        pytest.approx(float(edge), rel=0.01) for edge in (items.min(), items.max())
    ]
    what = "value" if components == 1 else "line"
    assert drawing.captions == (f"{what}s over the number of the component", f"grey behind a {what}: {FIRST}")


@pytest.mark.parametrize("channels", [3, 4])
def test_an_image_in_colour_is_shown_as_it_is_stored(channels):
    items = torch.randint(0, 256, (2, channels, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for axis, item in zip(drawn(by_form("image", items), 2), items, strict=True):
        shown = np.asarray(axis.images[0].get_array())
        np.testing.assert_allclose(shown, item[:3].permute(1, 2, 0) / 255, atol=1e-7)


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (2, 5, 7)])
def test_grey_levels_are_light(shape):
    items = torch.zeros(1, *shape, dtype=torch.uint8)
    items[..., 1, 2] = 255
    (axis,) = drawn(by_form("image", items), 1)
    expected = np.zeros((5, 7, 3))
    expected[1, 2] = 1
    np.testing.assert_array_equal(axis.images[0].get_array(), expected)
    small = by_form("image", items).small(torch.tensor([0]), (5, 7))
    assert small.shape == (1, 5, 7)
    assert small[0, 1, 2] == 0 < 1 == small[0, 0, 0]  # of ink


def test_numbers_of_any_scale_run_from_black_to_full_light():
    items = torch.tensor([[-3.0, 1.0], [5.0, torch.nan]]).view(1, 2, 2).expand(1, 3, 2, 2)
    (axis,) = drawn(by_form("image", items), 1)
    np.testing.assert_allclose(axis.images[0].get_array()[:, :, 0], [[0, 0.5], [1, 0]])


def test_ink_is_dark_where_a_kind_of_pairs_says_so():
    items = torch.tensor([[[0.0, 2.0]]])
    (axis,) = drawn(images(items), 1)
    assert axis.images[0].get_cmap().name == "gray_r"
    np.testing.assert_array_equal(images(items).small(torch.tensor([0]), (1, 2)), [[[0, 1]]])


def test_a_text_is_its_words_in_lines():
    items = stored("Schlüssel & Schloss", "$x^2$ costs $5", "")
    for axis, words in zip(
        drawn(by_form("text", items), 3), ("Schlüssel & Schloss", "$x^2$ costs $5", ""), strict=True
    ):
        assert " ".join(axis.texts[0].get_text().split()) == words
    assert text_of(torch.tensor([5, 0, 700, 0, 0], dtype=torch.int32)) == "5 0 700"
    assert text_of(stored("two\nlines\x1b[2J")[0]) == r"two lines\x1b[2J"
    assert text_of(stored("ä" * LENGTH)[0][:-1])[-1] == "\N{REPLACEMENT CHARACTER}"  # half of a letter


@pytest.mark.parametrize(
    "text", ["猫が好き", "Donaudampfschifffahrtsgesellschaftskapitän", "a word " * 60, "x" * 300, "🙂"]
)
def test_any_text_fits_its_axis(text, tmp_path):
    items = torch.from_numpy(np.frombuffer(text.encode().ljust(1000, b"\0"), np.uint8).copy())[None]
    figure = Figure(figsize=(1.6, 1.75))
    axis = figure.subplots()
    axis.set(xticks=[], yticks=[])
    by_form("text", items).draw([axis], torch.tensor([0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of a glyph that the font lacks
        figure.savefig(tmp_path / "text.png")
    box = axis.texts[0].get_window_extent()
    assert box.width < 1.5 * figure.dpi
    assert box.height < 1.5 * figure.dpi


def test_small_pictures_of_texts_differ_and_are_grey_levels():
    one, other = drawn_text("key", 32, 48), drawn_text("lock", 32, 48)
    assert one.shape == (32, 48)
    assert 0 <= one.min() < one.max() <= 1
    assert not torch.equal(one, other)
    assert fitted_text("a b")[1] > fitted_text("a b " * 40)[1]


def test_items_of_no_special_form_are_lines_and_numbers():
    assert drawn(by_form("numbers", torch.tensor([1.5, 2.0])), 2)[0].texts[0].get_text() == "1.5"
    assert drawn(by_form("labels", torch.tensor([3, 7])), 2)[1].texts[0].get_text() == "7"
    with_gaps = torch.tensor([[1.0, torch.nan, 3.0], [torch.inf, 0.0, 2.0]])
    for form in ("numbers", "image"):
        axes = drawn(by_form(form, with_gaps), 2)
        assert axes[0].get_ylim() == axes[1].get_ylim() == pytest.approx((-0.24, 3.24))
    assert drawn(by_form("numbers", torch.full((1, 2), torch.nan)), 1)[0].get_ylim() == (-1, 1)


def test_the_projector_gets_pictures_of_both_sides_in_colour_and_of_one_size():
    u = torch.randint(0, 256, (4, 3, 130, 260), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    v = torch.arange(4 * 8 * 8, dtype=torch.uint8).view(4, 8, 8)
    words = stored("one", "two", "three", "four")
    points = torch.zeros(4, 2), torch.zeros(4, 2)
    for other, form in ((v, "image"), (words, "text"), (torch.arange(4), "labels")):
        found = choose_embeddings((u, other), points, 4, (by_form("image", u), by_form(form, other))).images
        assert found.shape == (8, 3, 26, 52)  # a fifth: 64 pixels at most
        assert 0 <= found.min() < found.max() <= 1
        torch.testing.assert_close(found[4:, 0], found[4:, 2])  # grey
    assert choose_embeddings((v, v), points, 4, (by_form("image", v), by_form("image", v))).images.shape == (8, 8, 8)


def test_a_sprite_in_colour_is_a_grid_of_the_pictures(tmp_path):
    pictures = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    (tmp_path / "sprite.png").write_bytes(_sprite(pictures))
    with Image.open(tmp_path / "sprite.png") as picture:
        sprite = np.asarray(picture)
    assert sprite.shape == (8, 10, 3)
    for i in range(3):
        row, column = divmod(i, 2)
        light = 255 * (1 - pictures[i].permute(1, 2, 0).numpy())
        np.testing.assert_allclose(sprite[4 * row : 4 * row + 4, 5 * column : 5 * column + 5], light, atol=1)
    assert (sprite[4:, 5:] == 255).all()
