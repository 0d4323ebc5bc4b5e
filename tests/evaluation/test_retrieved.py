"""The picture of retrieved examples: its queries, order, ranks and frames, however items are drawn."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from pcl.evaluation.drawing import images, numbers, paths, vectors
from pcl.evaluation.retrieved import NUM_RETRIEVED, RIGHT, retrieved_figure

NUM = 8


def random(*shape, seed=0):
    return torch.randn(NUM, *shape, generator=torch.Generator().manual_seed(seed))


def rows_of(figure):
    """Return, for both directions, the axes of the picture by row."""
    blocks = []
    for block in figure.subfigs:
        grid = block.axes[0].get_gridspec()
        blocks.append([block.axes[i : i + grid.ncols] for i in range(0, len(block.axes), grid.ncols)])
    return blocks


def is_framed(axis):
    return axis.spines["left"].get_edgecolor() == to_rgba(RIGHT)


def drawn_line(axis):
    return np.asarray(axis.lines[-1].get_ydata())


def test_the_order_the_rank_and_the_frame_are_those_of_the_scores():
    u, v = random(3), random(4, seed=1)
    features = random(5, seed=2), random(5, seed=3)
    scores = (features[0] @ features[1].T).numpy()
    for block, (matrix, queries, candidates) in zip(
        rows_of(retrieved_figure((u, v), features, 3, (vectors(u), vectors(v)))),
        [(scores, u, v), (scores.T, v, u)],
        strict=True,
    ):
        for row, i in zip(block, (0, 4, 7), strict=True):  # evenly spread, rounded half to even
            order = np.argsort(-matrix[i])
            np.testing.assert_array_equal(drawn_line(row[0]), queries[i])
            np.testing.assert_array_equal(drawn_line(row[1]), candidates[i])
            assert row[1].get_title() == f"partner: rank {1 + list(order).index(i)}"
            assert len(row) == 2 + NUM_RETRIEVED
            for place, axis in enumerate(row[2:]):
                np.testing.assert_array_equal(drawn_line(axis), candidates[order[place]])
                assert is_framed(axis) == (order[place] == i)


@pytest.mark.parametrize("is_there", [True, False])
def test_frames_are_spoken_of_where_there_are_some(is_there):
    u, num = torch.arange(float(2 * NUM)).reshape(NUM, 2), NUM
    features = torch.eye(num), torch.eye(num) * (1 if is_there else -1)  # the partner is the first, or the last
    figure = retrieved_figure((u, u + 100), features, 3, (vectors(u), vectors(u + 100)))
    assert any(is_framed(axis) for block in rows_of(figure) for row in block for axis in row[2:]) == is_there
    assert ("framed" in figure.get_supxlabel()) == is_there


def test_equal_candidates_are_one_and_every_partner_is_right():
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 0, 0])
    pictures = random(4, 4)
    features = torch.eye(3)[labels] * 2 + 0.1 * random(3), torch.eye(3)[labels]
    to_label, to_image = rows_of(retrieved_figure((pictures, labels), features, 2, (images(pictures), numbers(labels))))
    for row, i in zip(to_label, (0, 7), strict=True):
        assert [axis.texts[0].get_text() for axis in row[1:3]] == [str(labels[i].item())] * 2
        assert len(row) == 2 + 3
        assert [is_framed(axis) for axis in row[2:]] == [True, False, False]
        np.testing.assert_array_equal(row[0].images[0].get_array(), pictures[i])
    first = {2: 0, 0: 1, 1: 2}
    for row, label in zip(to_image, (2, 1), strict=True):
        assert row[0].texts[0].get_text() == str(label)
        np.testing.assert_array_equal(row[1].images[0].get_array(), pictures[first[label]])
        best = torch.argsort(features[0][:, label], descending=True)[:3]
        assert [is_framed(axis) for axis in row[2:]] == [labels[i].item() == label for i in best]


def assert_within(text, figure):
    """Text lies within the figure, and above the pictures or below them."""
    box, whole = text.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1
    assert whole.y0 <= box.y0
    assert box.y1 <= whole.y1
    assert not any(box.overlaps(axis.get_window_extent()) for block in figure.subfigs for axis in block.axes)


@pytest.mark.long
@pytest.mark.parametrize(
    ("items", "drawing", "artists"),
    [
        (random(), numbers, "texts"),
        (random(12), vectors, "lines"),
        (random(98), vectors, "lines"),
        (random(6, 6), images, "images"),
        (random(50, 2), paths, "lines"),
        (torch.zeros(NUM, 4), vectors, "lines"),
    ],
    ids=["number", "vector", "long vector", "image", "path", "constant"],
)
def test_every_kind_of_item_is_drawn(items, drawing, artists, tmp_path):
    features = random(3), random(3, seed=1)
    other = random(2, seed=5)
    drawings = drawing(items), vectors(other)
    figure = retrieved_figure((items, other), features, 2, drawings, ("a long meaning " * 20, "short"))
    figure.savefig(tmp_path / "figure.png")
    to_other, to_items = rows_of(figure)
    assert all(getattr(row[0], artists) for row in to_other)
    assert all(getattr(axis, artists) for row in to_items for axis in row[1:])
    for block in figure.subfigs:
        assert block.get_suptitle().replace("\n", " ").count("a long meaning") == 20  # nothing is cut off
        assert_within(block._suptitle, figure)
    assert_within(figure._supxlabel, figure)


def test_few_pairs_are_enough():
    items = random(3)[:1], random(2)[:1]
    drawings = vectors(items[0]), vectors(items[1])
    for block in rows_of(retrieved_figure(items, (random(3)[:1], random(3)[:1]), 4, drawings)):
        assert [len(row) for row in block] == [3]
        assert is_framed(block[0][2])


def test_the_first_clause_of_a_meaning_is_the_title():
    items, meanings = (random(3), random(4)), ("currents; NaN on land", "drifters: x")
    drawings = vectors(items[0]), vectors(items[1])
    figure = retrieved_figure(items, (random(3), random(3)), 1, drawings, meanings)
    assert [block.get_suptitle() for block in figure.subfigs] == [
        f"v given u: the best of {NUM} v (drifters) for a u (currents)",
        f"u given v: the best of {NUM} u (currents) for a v (drifters)",
    ]
    assert figure.get_supxlabel().startswith("framed")
