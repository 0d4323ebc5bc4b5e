"""Parts of an evaluation by any number of cores and tasks: the same numbers, to the bit, and those of brute force."""

import pickle
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pcl.config.load import load_config
from pcl.encoders.build import build_model
from pcl.evaluation import blocks, labels, parts, stripes
from pcl.evaluation.blocks import room
from pcl.evaluation.features import features_of
from pcl.evaluation.parts import HERE, Lazily, Parts
from pcl.evaluation.retrieval import both_ranks, identity_of
from pcl.model import PairModel
from pcl.tilting import Temperature
from pcl.train.parts import model_spec
from tests.evaluation.test_evaluate import FewDigits, evaluated
from tests.evaluation.test_retrieval import brute_force_ranks
from tests.shards import build_shards
from tests.train.test_session import ROOT


def tasks(num_tasks, function, shared, items):
    """Do what tasks do: everything travels, none sees another's memory, and they finish in any order."""
    given = pickle.dumps((function, shared))
    for first in range(num_tasks):
        for number in reversed(range(first, len(items), num_tasks)):
            work, known = pickle.loads(given)
            yield number, pickle.loads(pickle.dumps(work(known, pickle.loads(pickle.dumps(items[number])))))


def apart(num_tasks):
    """Return parts that so many tasks compute, 0: this process."""
    return Parts(partial(tasks, num_tasks)) if num_tasks else HERE


@pytest.fixture
def cores():
    """Return a function that says how many cores torch would take, which it takes again afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def no_part_is_small(monkeypatch):
    monkeypatch.setattr(parts, "FEW", 0)


def seen_by(shared, item):
    return shared, item, torch.get_num_threads(), torch.is_grad_enabled()


@pytest.mark.parametrize(("num_cores", "num_tasks"), [(1, 0), (2, 0), (3, 0), (1, 2), (2, 3)])
def test_a_part_is_computed_on_one_core_without_gradients(cores, num_cores, num_tasks):
    cores(num_cores)
    items = Lazily(lambda number: number * number, 7)
    assert [*apart(num_tasks).in_order(seen_by, "all", items)] == [("all", i * i, 1, False) for i in range(7)]
    assert torch.get_num_threads() == num_cores
    assert [*items[2:4]] == [4, 9]
    assert items[-1] == 36


def test_how_far_it_is_is_shown_as_parts_finish():
    shown = []

    def show(found, total, what):
        for result in found:
            shown.append((result[0], total, what))
            yield result

    assert [*Parts(partial(tasks, 2), show=show).in_order(divmod, 9, [2, 4, 5], "nines")] == [(4, 1), (2, 1), (1, 4)]
    assert shown == [(2, 3, "nines"), (0, 3, "nines"), (1, 3, "nines")]


def fails_at_two(_, item):
    if item == 2:
        raise ValueError(item)
    return item


@pytest.mark.parametrize("num_cores", [1, 3])
def test_a_part_that_fails_ends_them_all(cores, num_cores):
    cores(num_cores)
    with pytest.raises(ValueError, match="2"):
        list(HERE.each(fails_at_two, None, range(100)))
    assert torch.get_num_threads() == num_cores


def test_few_parts_are_not_worth_a_task():
    def refuse(function, shared, items):
        raise AssertionError("a task was started")

    assert [*Parts(refuse).in_order(divmod, 7, [2, 3])] == [(3, 1), (2, 1)]


@st.composite
def retrievals(draw):
    """Whole numbers, whose ties are exact in float32 too; values repeat, labels are few, and some are missing."""
    num_pairs, dim = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    most = draw(st.sampled_from([2, 12, 40]))
    values = [draw(st.lists(st.integers(0, m), min_size=num_pairs, max_size=num_pairs)) for m in (40, most)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    sides = [torch.randint(-2, 3, (41, dim), generator=generator).float() for _ in values]
    for side in sides:
        side[torch.rand(41, generator=generator) < draw(st.sampled_from([0.0, 0.1]))] = torch.nan
    return *(side[of] for side, of in zip(sides, values, strict=True)), *values


@given(retrievals(), st.integers(1, 9), st.integers(1, 3))
@settings(deadline=None, max_examples=100)
def test_ranks_of_any_number_of_tasks_are_those_of_brute_force_in_float64(problem, block_pairs, num_tasks):
    u, v, *values = problem
    ids = [identity_of(torch.tensor(side)) for side in values]
    found = both_ranks(u, v, *ids, block_pairs, Parts(partial(tasks, num_tasks)))
    if not (u.isnan().any() or v.isnan().any()):
        assert found[0].tolist() == brute_force_ranks(u.double(), v.double(), *values)
        assert found[1].tolist() == brute_force_ranks(v.double(), u.double(), *values[::-1])
    for ours, theirs in zip(found, both_ranks(u, v, *ids, block_pairs), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("num_pairs", [1, 37, 300])
def test_ranks_do_not_hang_on_the_number_of_tasks_or_cores(cores, monkeypatch, num_pairs):
    monkeypatch.setattr(stripes, "BLOCKS_HIGH", 2)
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(num_pairs, 5, generator=generator) for _ in range(2))
    u[::7], v[::5] = u[:1].clone(), v[:1].clone()  # ties of items that are not equal
    ids = torch.arange(num_pairs), torch.arange(num_pairs)
    expected = both_ranks(u, v, *ids, 16)
    for num_cores, num_tasks in ((1, 1), (1, 2), (1, 3), (2, 0), (3, 0)):
        cores(num_cores)
        for ours, theirs in zip(both_ranks(u, v, *ids, 16, apart(num_tasks)), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_a_query_whose_features_are_missing_comes_last():
    u, v, ids = torch.eye(4), torch.eye(4), torch.arange(4)
    u[1], v[2] = torch.nan, torch.nan
    v_given_u, u_given_v = both_ranks(u, v, ids, ids, 2, Parts(partial(tasks, 2)))
    assert v_given_u.tolist() == [2, 4, 4, 2]
    assert u_given_v.tolist() == [2, 4, 4, 2]


def test_embeddings_are_those_of_all_pieces(cores, monkeypatch, no_part_is_small):
    monkeypatch.setattr(blocks, "HELD_BYTES", 100)  # mapped from a file
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(101, 6, generator=generator), torch.randn(101, 3, generator=generator)
    model = PairModel(
        nn.Linear(6, 4), nn.Linear(3, 4), "inner_product", Temperature(1.0, learned=False, minimum=1, maximum=1)
    )
    with torch.no_grad():
        expected = [
            torch.cat([*map(encode, torch.split(part, 3))])
            for encode, part in zip((model.features_u, model.features_v), items, strict=True)
        ]
    for num_cores, num_tasks in ((1, 0), (1, 1), (1, 2), (1, 3), (3, 0)):
        cores(num_cores)
        found = features_of(model, items, 3, apart(num_tasks))
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_large_tensor_lies_in_a_file_whose_room_is_there(monkeypatch):
    monkeypatch.setattr(blocks, "HELD_BYTES", 100)
    large = room((30, 5), torch.float64)
    large.copy_(torch.arange(150).reshape(30, 5))
    assert large.sum() == 149 * 75
    monkeypatch.setattr(blocks.os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(blocks.BadInputError, match=r"has no room for 0\.0 GB .*No space left.*TMPDIR"):
        room((30, 5), torch.float64)


def assert_same(results):
    """Assert that evaluations have the same numbers, to the bit, and say the same."""
    first, *others = results
    for other in others:
        assert other.metrics == first.metrics
        assert (other.tables, other.notes) == (first.tables, first.notes)


def test_digits_have_the_same_metrics_however_many_tasks_evaluate_them(mnist_root, tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "MOST_ROWS", 2)
    monkeypatch.setattr(labels, "MOST_SHOWN", 2)  # a figure of few items: it takes longer than all numbers
    manifest = build_shards(tmp_path, FewDigits(mnist_root), 2, 100)
    config = load_config(ROOT / "configs" / "mnist.yaml", (f"data.shards={tmp_path}", f"data.root={mnist_root}"))
    model = build_model(model_spec(config, manifest)).eval()
    chosen = {"block_pairs": 7, "num_examples": 2, "num_embeddings": 2}
    assert_same([evaluated("mnist", model, tmp_path, manifest, parts=apart(number), **chosen) for number in range(4)])


def test_gaussian_pairs_have_the_same_metrics_however_many_tasks_evaluate_them(make_shards):
    root, manifest = make_shards(num_train=400, num_test=200)
    config = load_config(ROOT / "configs" / "gaussian.yaml", (f"data.shards={root}",))
    model = build_model(model_spec(config, manifest)).eval()
    chosen = {"block_pairs": 7, "calibration": 30}
    numbers = range(4)
    assert_same([evaluated("gaussian_process", model, root, manifest, parts=apart(n), **chosen) for n in numbers])
