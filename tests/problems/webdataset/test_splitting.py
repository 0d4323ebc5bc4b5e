"""Splits by a hash of the key: of the stated size, of the keys alone, with repeated pairs on one side."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.problems.webdataset.index import SAMPLE, Tar
from pcl.problems.webdataset.settings import WebdatasetSettings
from pcl.problems.webdataset.splitting import divide

QUICK = settings(max_examples=60, deadline=None, database=None, derandomize=True)
TARS = [Tar(Path(f"/data/{name}.tar"), name * 64) for name in "abc"]
CONTENTS = st.tuples(st.integers(0, 3), st.integers(0, 3))
ROWS = st.lists(st.tuples(st.integers(0, 2**64 - 1), CONTENTS, st.integers(0, 2)), min_size=1, max_size=40)


def samples_of(rows: list[tuple[int, tuple[int, int], int]]) -> np.ndarray:
    """Return samples of hashes of keys, digests of contents and tars."""
    samples = np.zeros(len(rows), SAMPLE)
    for number, (hashed, digest, tar) in enumerate(rows):
        samples[number] = (tar, (512 * number, 0), (1, 1), hashed, digest, (0, 0), (0, 0))
    return samples


def numbers(samples: np.ndarray) -> list[int]:
    return (samples["at"][:, 0] // 512).tolist()


@QUICK
@given(rows=ROWS, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 2**63 - 1), keep=st.booleans())
def test_every_sample_has_one_place(rows, fraction, seed, keep):
    chosen = WebdatasetSettings(test_fraction=fraction, duplicates="keep" if keep else "drop")
    found = divide(samples_of(rows), TARS, chosen, seed)
    train, test = (numbers(found.samples[split]) for split in ("train", "test"))
    contents = [{rows[number][1] for number in split} for split in (train, test)]
    assert not contents[0] & contents[1]
    assert contents[0] | contents[1] == {content for _, content, _ in rows}
    assert found.repeated == len(rows) - len({content for _, content, _ in rows})
    assert sorted(train + test) == list(range(len(rows))) if keep else len(train + test) == len(rows) - found.repeated
    for split in (train, test):
        assert [rows[number][0] for number in split] == sorted(rows[number][0] for number in split)
    alone = [number for number, row in enumerate(rows) if sum(row[1] == other[1] for other in rows) == 1]
    for number in alone:
        assert (number in test) == (rows[number][0] / 2**64 < fraction)
    shared = [sum(rows[n][1][part] in {rows[m][1][part] for m in train} for n in test) for part in (0, 1)]
    assert list(found.shared) == shared


@QUICK
@given(rows=ROWS, data=st.data())
def test_the_order_of_samples_changes_nothing(rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    samples = samples_of(rows)
    found, other = (divide(given, TARS, WebdatasetSettings(), 0) for given in (samples, samples[order]))
    for split in ("train", "test"):
        np.testing.assert_array_equal(found.samples[split], other.samples[split])


@QUICK
@given(rows=ROWS)
def test_tars_are_held_out_by_name(rows):
    samples = samples_of(rows)
    for pattern in ("b.tar", "data/b*", "[b-b].tar"):
        found = divide(samples, TARS, WebdatasetSettings(split="tar", test_tars=[pattern]), 0)
        assert sorted(numbers(found.samples["test"])) == [number for number, row in enumerate(rows) if row[2] == 1]
