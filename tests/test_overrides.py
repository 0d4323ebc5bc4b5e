"""What is typed is what is used: texts as they are, other values by their type, or one line says why not."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pcl.config.identity import flatten
from pcl.config.load import DEFAULTS, HEAD_DEFAULTS, load_config, load_head_config, resolved_yaml
from pcl.config.schema import Config, HeadConfig, tree
from pcl.config.values import MOST_BYTES, MOST_DEPTH, MOST_NODES, parse, read_yaml
from pcl.errors import BadInputError
from pcl.storage.place import place
from tests.config.keys import KINDS, at_most, kinds, value

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ONE_RUN = [path for path in sorted(CONFIGS.glob("*.yaml")) if "\nvariants:" not in path.read_text()]
GAUSSIAN = CONFIGS / "gaussian.yaml"
GUESSED = [  # texts that YAML 1.1 or OmegaConf read as something else
    *("2024_01_05", "2024-01-05", "0123", "1e3", "12:30:00", "1.10", "0x10", "1_000", ".inf", ".nan", "1", "1.0"),
    *("null", "~", "true", "yes", "NO", "???", "${oc.env:HOME}", "${", "\\${a}", "=", "<<", "a #b", "#a", "a=b", " a "),
    *("[a]", "{a: b}", "a: b", "- a", "&a", "*a", "!a", "|", ">", "%a", "@a", "a%20b", "a\\nb", "\\"),
    *("'a'", '"a"', '"3.10"', "''", "bäse", "名前", "\u3000", "\u200b", "\ufeff", "🌊"),
]
TEXT_KEYS = ("name", *(f"data.ocean.{key}" for key in ("eastward", "northward", "group", "units", "mask")))
A_FEW = settings(
    max_examples=12,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MANY = settings(A_FEW, max_examples=60)


def refusal(path: Path | str, *overrides: str, load: Any = load_config) -> str:
    """Return why a configuration is refused: one line, without control characters, at once."""
    started = time.monotonic()
    with pytest.raises(BadInputError) as refused:
        load(path, overrides)
    assert time.monotonic() - started < 5.0
    assert str(refused.value).isprintable()
    return str(refused.value)


# text


texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40) | st.sampled_from(GUESSED)


def check_come_through(given_: list[str], folder: Path) -> None:
    """Give texts to as many keys, by overrides, by a run file, and by what a run keeps."""
    expected = dict(zip(TEXT_KEYS, given_, strict=False))
    config = load_config(GAUSSIAN, [f"{key}={text}" for key, text in expected.items()])
    assert {key: value(config, key) for key in expected} == expected
    run, file = yaml.safe_load(GAUSSIAN.read_text()), folder / "run.yaml"
    for key, text in expected.items():
        section = run.setdefault("data", {}).setdefault("ocean", {}) if "." in key else run
        section[key.rpartition(".")[2]] = text
    for content in (
        yaml.safe_dump(run, allow_unicode=True),
        json.dumps(run, ensure_ascii=False),
        resolved_yaml(config),
    ):
        file.write_text(content)
        assert load_config(file) == config


def is_a_name(text: str) -> bool:
    return text not in ("", ".", "..") and "/" not in text and text.isprintable()


@pytest.mark.long
@given(name=texts.filter(is_a_name), others=st.lists(texts, min_size=len(TEXT_KEYS) - 1, max_size=len(TEXT_KEYS) - 1))
@A_FEW
def test_any_text_comes_through(name, others, tmp_path):
    check_come_through([name, *others], tmp_path)


@pytest.mark.parametrize("first", range(0, len(GUESSED), len(TEXT_KEYS)))
def test_a_text_that_looks_like_something_else_is_that_text(first, tmp_path):
    check_come_through(sorted(GUESSED[first : first + len(TEXT_KEYS)], key=is_a_name, reverse=True), tmp_path)


@pytest.mark.parametrize("text", ["/x/a #2", "/x/2024_01_05", "/x/~", "/x/${HOME}", "/x/???"])
def test_a_folder_is_the_one_that_was_typed(text):
    config = load_config(GAUSSIAN, [f"storage={text}", f"data.root={text}", f"data.ocean.paths=[{text}]"])
    assert (config.storage, config.data.root, value(config, "data.ocean.paths")) == (text, text, [text])


@pytest.mark.parametrize("text", ["a #b", "2024_01_05", "0123", "1e3", "12:30:00", "1.10", "???", "null", "true", "no"])
def test_a_plain_text_of_a_run_file_is_that_text(text, tmp_path):
    """YAML knows comments; nothing else of what is written is taken for something."""
    (tmp_path / "run.yaml").write_text(GAUSSIAN.read_text().replace("name: gaussian", f"name: {text}"))
    assert load_config(tmp_path / "run.yaml").name == text.partition(" #")[0]


@pytest.mark.parametrize("character", ["\0", "\n", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\udcff"])
def test_control_characters_and_half_characters_are_refused(character):
    for key in (key for key, kind in KINDS.items() if kind is str):
        assert f"{key}=" in refusal(GAUSSIAN, f"{key}=a{character}b")
    assert "data.ocean.paths=" in refusal(GAUSSIAN, f"data.ocean.paths=[a{character}b]")


# other values


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        *(("02000", int, 2000), ("010", int, 10), ("-3", int, -3), ("+3", int, 3), (str(2**63 - 1), int, 2**63 - 1)),
        *(("1", float, 1.0), ("1e3", float, 1e3), ("-.5", float, -0.5), ("5.", float, 5.0), ("1.0e-06", float, 1e-6)),
        *(("true", bool, True), ("false", bool, False), ("null", bool | None, None), ("true", bool | None, True)),
        *(("null", float | None, None), ("~", float | None, None), ("3", float | None, 3.0)),
        *(("[]", list[int], []), ("[1]", list[int], [1]), ("[ 1 ,02]", list[int], [1, 2]), ("[a]", list[str], ["a"])),
        *(("3", int | list[int], 3), ("[2,8]", int | list[int], [2, 8])),
        ("[/a/*.nc, '/b, c', \"d]\", 'it''s', ' e ', a b, '']", list[str], None),
        ("[null, 3, true, a #b, a'b]", list[str], ["null", "3", "true", "a #b", "a'b"]),
    ],
)
def test_values_are_read_by_their_type(text, kind, expected):
    if expected is None and "*.nc" in text:
        expected = ["/a/*.nc", "/b, c", "d]", "it's", " e ", "a b", ""]
    found = parse(text, kind)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "kind", "rule"),
    [
        *((text, int, "an integer") for text in ("1:30", "1e3", "0x10", "1_000", "1.0", "", "0b1", "null", "³", "٣")),
        *((text, int, "less than 2^63") for text in ("9" * 400, str(2**63), "9" * 100_000)),
        *((text, float, "finite") for text in ("inf", ".inf", "nan", ".nan", "1e999", "1_0", "9" * 400, "", "1:30")),
        *((text, bool, "true or false") for text in ("True", "yes", "1", "on", "", "null")),
        *((text, list[int], "list") for text in ("1", "", "[1", "1]", "[1,,2]", "[,]", "[[1]]", "[1]]", "['1]")),
        *((text, float | None, "finite") for text in ("", "None", "Null")),
        *((text, int | list[int], "") for text in ("1:30", "[1:30]", "", "[1, 2")),
    ],
)
def test_what_is_no_value_of_a_type_is_refused(text, kind, rule):
    with pytest.raises(ValueError, match="it must be") as refused:
        parse(text, kind)
    assert rule in str(refused.value)


@given(number=st.integers(-(2**63), 2**63 - 1), zeros=st.integers(0, 9))
@MANY
def test_integers_are_decimal(number, zeros):
    text = f"{'-' if number < 0 else ''}{'0' * zeros}{abs(number)}"
    assert parse(text, int) == number


@given(number=st.floats(allow_nan=False, allow_infinity=False))
@MANY
def test_numbers_come_through_python_and_yaml(number):
    assert parse(repr(number), float) == number
    assert parse(yaml.safe_dump(number).splitlines()[0], float) == number


@given(items=st.lists(texts, max_size=5))
@MANY
def test_lists_of_quoted_texts_come_through(items):
    for quote in ("'", '"'):
        text = ", ".join(quote + item.replace(quote, 2 * quote) + quote for item in items)
        assert parse(f"[{text}]", list[str]) == items


def test_the_nearest_key_is_named():
    assert "the nearest is train.epochs;" in refusal(GAUSSIAN, "train.epoch=3")
    assert "the nearest is seed;" in refusal(GAUSSIAN, "sede=3")
    assert "the nearest is train;" in refusal(GAUSSIAN, "trian.epochs=3")
    assert "the nearest is timeout_s;" in refusal(CONFIGS / "head.yaml", "timeouts=3", load=load_head_config)


# files that were written before


@pytest.mark.parametrize("path", ONE_RUN, ids=lambda path: path.stem)
def test_our_files_mean_what_they_meant(path, tmp_path):
    """Their meaning for YAML 1.1, and so for all runs that were made of them."""
    is_head = path.stem == "head"
    load, page = (load_head_config, HEAD_DEFAULTS) if is_head else (load_config, DEFAULTS)
    config = load(path)
    given_ = flatten(yaml.safe_load(page.read_text())) | flatten(yaml.safe_load(path.read_text()))
    for key, expected in given_.items():
        if key in ("storage", "data.root", "data.shards"):
            expected = str(Path(expected).absolute())
        if key in ("data.ocean.paths", "data.webdataset.paths"):
            expected = [str(Path(name).absolute()) for name in expected]
        assert value(config, key) == expected, key
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree(config))))  # as runs kept it
    assert load(tmp_path / "config.yaml") == config


# bounds


@pytest.mark.parametrize(("schema", "known"), [(Config, KINDS), (HeadConfig, kinds(HeadConfig))])
def test_every_integer_has_an_upper_bound(schema, known):
    """Of ours: plugins of other tests may have keys of their own by now."""
    assert [key for key, kind in known.items() if kind is int and key not in at_most(schema)] == []


@pytest.mark.parametrize("key", sorted(key for key, kind in KINDS.items() if kind is int or kind == list[int]))
def test_a_huge_integer_ends_in_a_line_at_once(key):
    for text in (str(2**63 - 1), "9" * 400):
        if (
            key in ("seed", "data.seed", "data.streamfunction.law_seed", "evaluation.ocean.seed", "draw.seed")
            and len(text) < 20
        ):
            continue
        text = text if KINDS[key] is int else f"[{text}, {text}]"
        assert key in refusal(GAUSSIAN, f"{key}={text}")


def test_the_number_of_lanes_is_bounded():
    assert refusal(GAUSSIAN, "train.num_lanes=1000000000") == "train.num_lanes=1000000000: it must be at most 65536"


# files of any content


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"seed: !!timestamp 3", "line 1: tags"),
        (b"name: gaussian\nseed: !!python/object/apply:os.system [ls]", "line 2: tags"),
        (b"a: " + b"[" * 10_000, f"line 1: more than {MOST_NODES:,} values, or {MOST_DEPTH} in each other"),
        (b"a: " + b"{b: " * 10_000, "in each other"),
        (b"".join(b" " * i + b"a:\n" for i in range(500)), "in each other"),
        (b"[" + b"1," * 100_000 + b"]", "more than"),
        (b"a: &x [1]\nb: *x", "line 1: anchors"),
        (b"b: *x", "line 1: aliases"),
        (b"seed: 1\ntrain: {epochs: 1, epochs: 2}", "line 2: the key epochs is given twice"),
        (b"? [a]\n: 1", "line 1: a key must be a text"),
        (b"seed: 1\n---\nseed: 2", "several documents"),
        (b"seed: \xff", "not UTF-8 from byte 6"),
        (b"seed: \x00", "no YAML"),
        (b'name: "\\UFFFFFFFF"', ""),
        (b'name: "\\uD800"', "name="),
        (b'storage: "/a\\0b"', "storage="),
        (b"seed: " + b"9" * 400, "seed="),
        (b"#" * (MOST_BYTES + 1), f"the most is {MOST_BYTES:,}"),
        (b"seed: [1", "line 1"),
        (b"%YAML 99999.1\n---\na: b", ""),
        (b"train.epochs: 3", "'train.epochs' is not a key"),
    ],
)
def test_a_file_that_says_too_much_is_refused_in_a_line(content, rule, tmp_path):
    (tmp_path / "run.yaml").write_bytes(content)
    assert rule in refusal(tmp_path / "run.yaml", "data.shards=/s")


@pytest.mark.parametrize(
    "override", ["." * 500 + "=1", "=", "=1", "train=3", "train.=3", ".train=3", "name", "", "a" * 100_000, "seed==1"]
)
def test_an_override_that_is_none_is_refused(override):
    assert len(refusal(GAUSSIAN, override)) < 500


BASE = GAUSSIAN.read_bytes()
anything = st.text(max_size=20) | st.sampled_from(
    [*GUESSED, "9" * 400, "~nobody/x", "a\0b", "[", "[[", "s3://a@b", "gs://"]
)
KEYS = [*sorted(KINDS), "train", "data.ocean", "nope", "a.b", "." * 500]
overrides = st.lists(st.builds("{}={}".format, st.sampled_from(KEYS), anything) | anything, min_size=1, max_size=4)
pieces = st.sampled_from(
    [
        b"!!timestamp 3",
        b"&a",
        b"*a",
        b"[",
        b"]",
        b"{",
        b"}",
        b"? ",
        b"- ",
        b"\n",
        b"  ",
        b":",
        b"\x00",
        b"\xff",
        b"\x1b]0;x",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a run file with a few bytes replaced, or any bytes."""
    content = bytearray(draw(st.sampled_from([BASE, resolved_yaml(load_config(GAUSSIAN)).encode()])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content) - 1))
        content[at : at + draw(st.integers(0, 5))] = draw(pieces | st.binary(max_size=5))
    return bytes(content)


def check_line(error: BadInputError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 1000


def ends_well(path: Path, given_: list[str]) -> None:
    try:
        config = load_config(path, given_)
    except BadInputError as error:
        check_line(error)
    else:
        assert math.isfinite(config.train.learning_rate)
        resolved_yaml(config).encode()


@given(given_=overrides)
@MANY
def test_overrides_of_any_kind_end_well(given_):
    ends_well(GAUSSIAN, given_)


@pytest.mark.long
@given(content=mutated() | st.binary(max_size=100))
@MANY
def test_run_files_of_any_content_end_well(content, tmp_path):
    (tmp_path / "run.yaml").write_bytes(content)
    ends_well(tmp_path / "run.yaml", [])


@given(text=st.text(max_size=30) | st.sampled_from(["s3://a/\n", "~" * 300, "a/" * 3000, "s3://" + "a" * 5000, "~\0"]))
@MANY
def test_addresses_of_any_kind_end_well(text):
    for path in (text, f"~{text}", f"s3://{text}", f"s3://bucket/{text}", f"/{text}"):
        try:
            place(path)
        except BadInputError as error:
            check_line(error)


def test_a_run_file_that_nobody_may_read_is_named(tmp_path):
    for path in ("a\0b", "~nobody-of-that-name/x", "x" * 300, str(tmp_path), "a/" * 3000):
        refusal(path)


def test_reading_is_quick_and_needs_no_stack():
    """A file of the largest size, as slow as it can be."""
    started = time.monotonic()
    with pytest.raises(ValueError, match="more than"):
        read_yaml(b"[" + b"a, " * (MOST_BYTES // 3 - 1) + b"]")
    assert time.monotonic() - started < 5.0
