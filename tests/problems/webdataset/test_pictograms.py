"""Real pictograms and their names, against the tars as tarfile, Pillow and json read them."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcl.data.loader import iterate_split
from pcl.data.source import SourceContext
from pcl.problems.problem import problem
from pcl.problems.webdataset.settings import WebdatasetSettings
from pcl.problems.webdataset.source import WebdatasetSource, webdataset_source
from tests.shards import build_shards

NUM_SAMPLES = 1911


@pytest.fixture(scope="module")
def files(pictograms: Path) -> dict[str, dict[str, bytes]]:
    """Every file of the tars, by key and extension."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(pictograms.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                stream = tar.extractfile(member)
                assert stream is not None
                found.setdefault(key, {})[extension] = stream.read()
    assert len(found) == NUM_SAMPLES
    return found


def source_of(pictograms: Path, u: str, v: str, seed: int = 0, **settings: object) -> WebdatasetSource:
    settings = {"paths": [str(pictograms / "*.tar")], **settings}
    return webdataset_source(WebdatasetSettings(u=u, v=v, **settings), SourceContext(seed))


def all_pairs(source: WebdatasetSource) -> tuple[np.ndarray, np.ndarray]:
    """Return u and v of both splits."""
    splits = [source.pairs(split, 0, NUM_SAMPLES) for split in ("train", "test")]
    u, v = (np.concatenate([of_split[name] for of_split in splits]) for name in "uv")
    return u, v


def over_white(content: bytes) -> np.ndarray:
    """Return a picture of 64 x 64 over white, by the formula."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    return np.moveaxis(pixels[..., :3] * alpha + 255 * (1 - alpha), -1, 0)


def padded(text: str, length: int) -> bytes:
    """Return the longest beginning of a text whose UTF-8 fits, followed by zeros."""
    kept = next(text[:n] for n in range(len(text), -1, -1) if len(text[:n].encode()) <= length)
    return kept.encode().ljust(length, b"\0")


@pytest.mark.parametrize("part", ["twemoji.png", "noto.png"])
def test_images_of_their_own_size_are_the_pixels_over_white(pictograms, files, part):
    source = source_of(pictograms, part, "txt", paths=[str(pictograms / "*3.tar")])
    by_name = {padded(one["txt"].decode(), 64): one[part] for one in files.values()}
    u, v = all_pairs(source)
    assert u.shape == (len(v), 3, 64, 64)
    assert u.dtype == v.dtype == np.uint8
    assert len(v) > 230
    for picture, text in zip(u, v, strict=True):
        np.testing.assert_allclose(picture, over_white(by_name[text.tobytes()]), atol=0.51)


@pytest.mark.parametrize("field", ["name_de", "name_ja", "keywords"])
def test_texts_are_the_bytes_of_the_fields(pictograms, files, field):
    source = source_of(pictograms, f"json:{field}", "txt", text_length=24)
    wanted = Counter()
    for one in files.values():
        value = json.loads(one["json"])[field]
        text = " ".join(value) if isinstance(value, list) else value
        wanted[padded(text, 24), padded(one["txt"].decode(), 24)] += 1
    assert Counter((u.tobytes(), v.tobytes()) for u, v in zip(*all_pairs(source), strict=True)) == wanted
    too_long = sum(len(one["txt"]) > 24 for one in files.values())
    assert source.provenance()["cut"]["v"] == too_long > 100
    assert f"cut: {too_long} texts of v are longer than text_length=24, the longest has 44" in source.notes(10)


@pytest.mark.long
def test_repeated_pairs_lie_on_one_side_and_are_counted(pictograms, files):
    times = Counter((one["twemoji.png"], one["noto.png"]) for one in files.values())
    repeated = sum(number - 1 for number in times.values())
    source = source_of(pictograms, "twemoji.png", "noto.png", image_size=24)
    assert source.provenance()["repeated"] == repeated == 12
    assert source.num_pairs("train") + source.num_pairs("test") == NUM_SAMPLES
    train, test = (
        {(u.tobytes(), v.tobytes()) for u, v in zip(*source.pairs(split, 0, NUM_SAMPLES).values(), strict=True)}
        for split in ("train", "test")
    )
    assert len(train) + len(test) == len(train | test) == len(times)


def test_a_quarter_is_held_out_and_the_same_keys_whatever_the_parts(pictograms):
    held_out = []
    for u in ("json:name_de", "json:name_es"):
        source = source_of(pictograms, u, "txt", test_fraction=0.25)
        assert abs(source.num_pairs("test") / NUM_SAMPLES - 0.25) < 4 * (0.25 * 0.75 / NUM_SAMPLES) ** 0.5
        held_out.append(source.pairs("test", 0, NUM_SAMPLES)["v"])
    np.testing.assert_array_equal(*held_out)


def test_whole_tars_are_held_out(pictograms, files):
    source = source_of(pictograms, "json:name_de", "txt", split="tar", test_tars=["*-000007.tar"])
    with tarfile.open(pictograms / "pictograms-000007.tar") as tar:
        keys = {name.partition(".")[0] for name in tar.getnames()}
    wanted = Counter(padded(files[key]["txt"].decode(), 64) for key in keys)
    assert Counter(row.tobytes() for row in source.pairs("test", 0, NUM_SAMPLES)["v"]) == wanted
    assert source.num_pairs("train") == NUM_SAMPLES - len(keys)


def test_provenance_is_the_content_of_the_tars(pictograms):
    found = source_of(pictograms, "json:name_de", "txt").provenance()
    assert found["tars"] == [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(pictograms.glob("*.tar"))
    ]
    assert found["name"] == "webdataset"
    assert found["forms"] == ["text", "text"]
    assert (found["samples"], found["skipped"]) == (NUM_SAMPLES, {})


def test_the_order_in_which_tars_are_listed_changes_nothing(pictograms):
    source = source_of(pictograms, "json:name_de", "txt")
    paths = sorted(map(str, pictograms.glob("*.tar")), reverse=True)
    other = source_of(pictograms, "json:name_de", "txt", paths=[paths[3], str(pictograms), *paths])
    assert other.provenance() == source.provenance()
    for one, same in zip(all_pairs(source), all_pairs(other), strict=True):
        np.testing.assert_array_equal(one, same)


def test_another_seed_gives_another_split_and_order(pictograms):
    one, other = (
        source_of(pictograms, "json:name_de", "txt", seed).pairs("test", 0, NUM_SAMPLES)["v"] for seed in (0, 1)
    )
    same = {row.tobytes() for row in one} & {row.tobytes() for row in other}
    assert len(same) < 0.5 * len(one)


def test_shards_are_the_same_bytes_in_any_order_and_know_what_they_hold(pictograms, tmp_path):
    source = source_of(
        pictograms, "noto.png", "txt", image_size=8, text_length=12, paths=[str(pictograms / "*-000002.tar")]
    )
    first = build_shards(tmp_path / "a", source, 3, 20)
    other = build_shards(tmp_path / "b", source, 3, 20, order=[5, 0, 3, 1, 4, 2])
    assert first == other
    assert problem("webdataset").forms(first) == ("image", "text")
    assert first.source["samples"] == source.num_pairs("train") + source.num_pairs("test")
    assert first.statistics["v"] == {}
    read = np.concatenate([record[0].numpy() for record in iterate_split(tmp_path / "a", first, "train", ["u", "v"])])
    np.testing.assert_array_equal(read, source.pairs("train", 0, NUM_SAMPLES)["u"])
    assert first.arrays["u"].statistics == "scalar"
    assert first.statistics["u"]["mean"] == pytest.approx((read / 255).mean())
    assert first.statistics["u"]["std"] == pytest.approx((read / 255).std())


def test_a_range_is_a_part_of_the_whole(pictograms):
    source = source_of(pictograms, "json:name_de", "txt")
    whole = source.pairs("test", 0, source.num_pairs("test"))
    part = source.pairs("test", 17, 31)
    for name in "uv":
        np.testing.assert_array_equal(part[name], whole[name][17:31], strict=True)
