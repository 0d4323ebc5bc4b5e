"""Tars with mistakes: every sample is a pair or is counted, and a broken tar ends in a line that names it."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcl.data.source import SourceContext
from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.problem import problem
from pcl.problems.webdataset.settings import WebdatasetSettings
from pcl.problems.webdataset.source import WebdatasetSource, webdataset_source
from tests.modest import modest
from tests.shards import build_shards


def picture(level: int = 0, kind: str = "PNG", size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (level % 256, 0, 0)).save(file, kind)
    return file.getvalue()


def source_of(*paths: Path, u: str = "png", v: str = "txt", **settings: object) -> WebdatasetSource:
    chosen = {"image_size": 2, "text_length": 8} | settings
    return webdataset_source(WebdatasetSettings(paths=list(map(str, paths)), u=u, v=v, **chosen), SourceContext())


def texts(source: WebdatasetSource) -> list[str]:
    """Return all v as texts, sorted."""
    found = [row for split in ("train", "test") for row in source.pairs(split, 0, 10**6)["v"]]
    return sorted(row.tobytes().rstrip(b"\0").decode() for row in found)


GOOD = {"0.png": picture(), "0.txt": b"zero", "1.png": picture(1), "1.txt": b"one"}


@pytest.mark.parametrize(
    ("extra", "reason", "where"),
    [
        ({"x.png": picture(9)}, "v is missing", "x in a.tar"),
        ({"x.txt": b"x"}, "u is missing", "x in a.tar"),
        ({"x.md": b"x"}, "u and v are missing", "x in a.tar"),
        ({"x.png": b"no picture", "x.txt": b"x"}, "u is no image, or a damaged one", "x.png in a.tar"),
        ({"x.png": picture(9)[:48], "x.txt": b"x"}, "u is no image, or a damaged one", "x.png in a.tar"),
        ({"x.png": b"", "x.txt": b"x"}, "u is no image, or a damaged one", "x.png in a.tar"),
        ({"x.png": picture(9), "x.txt": b"\xff\xfe"}, "v is no UTF-8", "x.txt in a.tar"),
        ({"x.png": picture(9), "x.txt": b" \n"}, "v is empty", "x.txt in a.tar"),
        ({"x.png": picture(9), "x.txt": b"x", "x.PNG": picture(8)}, "u is there twice", "x in a.tar"),
        ({"x/../y.png": picture(9), "x.txt": b"x"}, "v is missing", "x/../y in a.tar"),
    ],
)
def test_a_sample_that_is_no_pair_is_counted_with_its_reason(make_tar, extra, reason, where):
    source = source_of(make_tar({**GOOD, **extra, "2.png": picture(2), "2.txt": b"two"}))
    assert texts(source) == ["one", "two", "zero"]
    assert source.provenance()["skipped"][reason] == 1
    assert any(line.startswith(f"left out: {reason}: 1 (first: {where}") for line in source.notes(10))
    assert source.provenance()["samples"] == 3 + sum(source.provenance()["skipped"].values())


def test_members_that_are_no_samples_are_passed_over(make_tar):
    path = make_tar({"README": b"", "d/.hidden": b"", "__index__/a.png": b"", **GOOD})
    source = source_of(path)
    assert (source.provenance()["samples"], source.provenance()["skipped"]) == (2, {})


def test_keys_lead_nowhere_and_extensions_are_told_in_small_letters(make_tar):
    path = make_tar({"../x.PNG": picture(), "../x.Txt": b"up", "/etc/passwd.png": picture(), "/etc/passwd.txt": b"pw"})
    source = source_of(path)
    assert texts(source) == ["pw", "up"]
    assert [one.name for one in path.parent.iterdir()] == ["a.tar"]


def test_parts_need_not_follow_each_other(make_tar):
    source = source_of(make_tar({"0.png": picture(), "1.png": picture(1), "0.txt": b"zero", "1.txt": b"one"}))
    assert texts(source) == ["one", "zero"]


def test_a_key_with_several_extensions_has_the_very_one_that_is_named(make_tar):
    files = {"0.left.png": picture(10), "0.right.png": picture(20), "0.png": picture(30), "0.txt": b"zero"}
    source = source_of(make_tar(files), u="left.png", v="right.png", image_mode="RGB")
    pairs = source.pairs("train" if source.num_pairs("train") else "test", 0, 1)
    assert (pairs["u"][0, 0] == 10).all()
    assert (pairs["v"][0, 0] == 20).all()


def test_a_link_is_no_file(make_tar):
    path = make_tar(GOOD | {"2.txt": b"two"}, links={"2.png": "1.png"})
    source = source_of(path)
    assert source.provenance()["skipped"] == {"u is a link, or another file without content of its own": 1}


def test_repeated_pairs_are_kept_or_dropped_on_one_side(make_tar):
    files = {f"{key}.{name}": content for key in "abcdefgh" for name, content in (("png", picture()), ("txt", b"t"))}
    for settings, number in (({}, 10), ({"duplicates": "drop"}, 3)):
        source = source_of(make_tar(GOOD | files), test_fraction=0.5, **settings)
        assert source.provenance()["repeated"] == 7
        assert source.num_pairs("train") + source.num_pairs("test") == number
        sides = ["t" in [one.tobytes()[:1].decode() for one in source.pairs(split, 0, 20)["v"]
                 if one.tobytes().startswith(b"t\0")] for split in ("train", "test")]  # fmt: skip
        assert sum(sides) == 1


def test_pairs_repeated_in_training_and_held_out_tars_are_said(make_tar):
    source = source_of(
        make_tar(GOOD), make_tar({**GOOD, "2.png": picture(2), "2.txt": b"two"}, "b.tar"), split="tar", test_tars=["b*"]
    )
    assert source.provenance()["shared"] == (2, 2)
    assert "shared: 2 held-out pairs have the u of a training pair, byte by byte" in source.notes(10)


def test_an_empty_tar_beside_others_adds_nothing(make_tar):
    assert texts(source_of(make_tar(GOOD), make_tar({}, "b.tar"))) == ["one", "zero"]


@pytest.mark.parametrize("files", [{}, {"README": b""}])
def test_tars_without_samples_are_refused(make_tar, files):
    with pytest.raises(BadInputError, match="none of 0 samples in 1 tars is a pair of png and txt"):
        source_of(make_tar(files))


def test_a_wrong_extension_is_told_with_those_there(make_tar):
    with pytest.raises(BadInputError, match=r"u is missing: 2 \(first: 0 in a.tar\).*png \(2\), txt \(2\)$"):
        source_of(make_tar(GOOD), u="jpg")


def whole(tmp_path: Path) -> bytes:
    files = {f"{key:03}.{name}": content for key in range(90) for name, content in (("png", picture()), ("txt", b"t"))}
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return (tmp_path / "whole.tar").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no tar" * 1000,
        lambda content: content[:100],
        lambda content: content[:512],
        lambda content: content[:1000],
        lambda content: content[: 90 * 512],
        lambda content: content[: 90 * 1024 + 300],
        lambda content: content[: 90 * 1024],
        lambda content: content + content,
        lambda content: content[: 30 * 1024] + bytes(1024) + content[31 * 1024 :],
        lambda content: content[: 30 * 1024 + 5] + b"x" + content[30 * 1024 + 6 :],
        lambda content: content[:100] + b"x" + content[101:],
        lambda content: content[: 30 * 1024 + 124] + b"\x80" + b"\xff" * 11 + content[30 * 1024 + 136 :],
    ],
    ids=lambda damage: None,
)
def test_a_broken_tar_ends_in_a_line_that_names_it(make_tar, tmp_path, damage):
    good = make_tar(GOOD)
    bad = tmp_path / "bad.tar"
    bad.write_bytes(damage(whole(tmp_path)))
    with (
        modest(),
        pytest.raises(DamagedDataError, match=r"bad.tar is no tar, or was cut off or damaged \(.*\): ") as found,
    ):
        source_of(good, bad)
    assert str(found.value).isprintable()


def test_a_header_of_a_huge_size_allocates_nothing(tmp_path):
    member = tarfile.TarInfo("0.png")
    member.size = 1 << 50
    for size, content in ((1 << 20, b""), (1 << 40, b"")):
        path = tmp_path / "huge.tar"
        path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + content)
        with path.open("ab") as stream:
            stream.truncate(size)
        with modest(), pytest.raises(DamagedDataError, match=r"huge\.tar"):
            source_of(path)


def test_a_part_of_hundreds_of_megabytes_is_not_read(tmp_path):
    path = tmp_path / "large.tar"
    with path.open("wb") as stream:
        for name, content in GOOD.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            stream.write(member.tobuf() + content.ljust(-(-len(content) // 512) * 512, b"\0"))
        for name, size in (("2.png", (1 << 28) + 512), ("2.txt", 512)):
            member = tarfile.TarInfo(name)
            member.size = size
            stream.write(member.tobuf())
            stream.truncate(stream.tell() + size)
            stream.seek(0, 2)
        stream.write(bytes(1024))
    source = source_of(path)
    assert source.provenance()["skipped"] == {f"u has more than {1 << 28:,} bytes": 1}


def test_a_compressed_tar_is_to_be_unpacked(make_tar):
    path = make_tar(GOOD)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(BadInputError, match=r"a\.tar is compressed"):
        source_of(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"u": ""}, "data.webdataset.u is not given"),
        ({"v": "wav"}, "data.webdataset.v=wav is nothing that is read here: give jpg"),
        ({"v": "json"}, "v=json is nothing"),
        ({"v": "json:"}, "v=json: is nothing"),
        ({"v": "txt:name"}, "v=txt:name is nothing"),
        ({"v": "PNG"}, "u and v are both png"),
        ({"image_size": 0}, "image_size=0: give pixels"),
        ({"image_size": [2, 3, 4]}, r"image_size=\[2, 3, 4\]: give pixels"),
        ({"tokenizer": "words"}, "'words' is no tokenizer"),
        ({"split": "tar"}, r"test_tars=\[\] matches none of 1 tars \(a.tar\)"),
        ({"split": "tar", "test_tars": ["*"]}, "matches all of 1 tars"),
    ],
)
def test_wrong_settings_end_in_a_line(make_tar, settings, message):
    with pytest.raises(BadInputError, match=message) as refused:
        source_of(make_tar(GOOD), **settings)
    assert str(refused.value).isprintable()


def test_paths_that_lead_nowhere_end_in_a_line(tmp_path):
    for path in (tmp_path / "no.tar", tmp_path / "*.tar", tmp_path):
        with pytest.raises(BadInputError, match="no tar file there"):
            source_of(path)
    with pytest.raises(BadInputError, match="no paths"):
        source_of()


def test_a_tar_that_changes_after_it_was_counted_is_noticed(make_tar):
    path = make_tar(GOOD)
    source = source_of(path)
    path.write_bytes(path.read_bytes().replace(b"zero", b"nero").replace(b"one", b"two"))
    with pytest.raises(DamagedDataError, match=r"a\.tar has changed"):
        texts(source)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DamagedDataError, match=r"a\.tar has become shorter"):
        texts(source)


def test_memory_does_not_grow_with_the_tar(tmp_path):
    path = tmp_path / "many.tar"
    noise = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(40):
            file = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (700, 700, 3), np.uint8)).save(file, "BMP")
            for name, content in (("bmp", file.getvalue()), ("json", json.dumps({"n": [number, 1]}).encode())):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    source_of(path, u="bmp", v="json:n", json_numbers=["n"])
    assert path.stat().st_size > 50_000_000
    with modest(40_000_000):
        source = source_of(path, u="bmp", v="json:n", json_numbers=["n"])
        for split in ("train", "test"):
            source.pairs(split, 0, 100)


def test_labels_and_numbers_have_their_statistics(make_tar, tmp_path):
    arrays = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    files = {}
    for number, array in enumerate(arrays):
        file = io.BytesIO()
        np.save(file, array)
        files |= {f"{number}.npy": file.getvalue(), f"{number}.cls": b"%d" % (number % 3)}
    source = source_of(make_tar(files), u="npy", v="cls", test_fraction=0.3)
    manifest = build_shards(tmp_path / "shards", source, 2, 4)
    assert problem("webdataset").forms(manifest) == ("numbers", "labels")
    train = source.pairs("train", 0, 100)
    order = [int(np.flatnonzero((arrays == one).all(1))[0]) for one in train["u"]]
    assert train["v"].tolist() == [number % 3 for number in order]
    assert manifest.statistics["v"] == {"counts": np.bincount(train["v"]).tolist()}
    np.testing.assert_allclose(manifest.statistics["u"]["mean"], arrays[order].mean(0), atol=1e-6)
    np.testing.assert_allclose(manifest.statistics["u"]["std"], arrays[order].std(0), atol=1e-6)


def test_a_label_that_is_held_out_only_is_refused(make_tar):
    first = make_tar({"0.png": picture(), "0.cls": b"0"})
    other = make_tar({"1.png": picture(1), "1.cls": b"1"}, "b.tar")
    with pytest.raises(BadInputError, match="1 held-out pairs have a label v that no training pair has"):
        source_of(first, other, v="cls", split="tar", test_tars=["b.tar"])
