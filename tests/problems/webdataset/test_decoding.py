"""Decoders against Pillow, numpy and json by hand, and files that are not what their extension says."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pcl.data.tokenizers import TOKENIZERS, TokenizerKind, register_tokenizer
from pcl.errors import BadInputError
from pcl.problems.webdataset import read_item
from pcl.problems.webdataset.decoding import decoder_of
from pcl.problems.webdataset.images import MOST_PIXELS, decoded_image
from pcl.problems.webdataset.parts import part_of
from pcl.problems.webdataset.settings import WebdatasetSettings
from tests.modest import modest

QUICK = settings(max_examples=100, deadline=None, database=None, derandomize=True)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def decode(given: str, content: bytes, **chosen: object) -> np.ndarray:
    """Return the item of a part as the decoder of items like it makes it."""
    decoder = decoder_of(part_of("v", given, chosen.get("json_numbers", [])), WebdatasetSettings(**chosen))
    decoder = decoder.like(content)
    item = decoder(content).array
    assert (item.dtype.name, item.shape) == (decoder.info.dtype, decoder.info.shape)
    return item


def test_what_draws_are_given_is_read_as_the_tars_are(monkeypatch):
    """An image of a file and a text of a command line: of a field of JSON too the text is given as it is."""
    monkeypatch.setitem(TOKENIZERS, "lengths", TokenizerKind(lambda text: [len(word) for word in text.split()]))
    chosen = WebdatasetSettings(u="left.png", v="json:caption", image_size=[4, 6], image_mode="L", text_length=5)
    content = saved(Image.fromarray(noise(20, 30, 3)))
    np.testing.assert_array_equal(
        read_item(chosen, "u", content), decode("left.png", content, image_size=[4, 6], image_mode="L")
    )
    assert bytes(read_item(chosen, "v", "größer".encode())) == "grö".encode() + b"\0"
    chosen.tokenizer = "lengths"
    assert read_item(chosen, "v", b"a red circle").tolist() == [1, 3, 6, 0, 0]
    with pytest.raises(ValueError, match="is empty"):
        read_item(chosen, "v", b"  ")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_an_image_of_the_size_is_what_was_saved(kind):
    pixels = noise(5, 9, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(pixels), kind, **options)
    np.testing.assert_array_equal(decode("png", content, image_size=[5, 9]), np.moveaxis(pixels, -1, 0))


def test_a_jpeg_is_what_pillow_reads():
    content = saved(Image.fromarray(noise(8, 8, 3)), "JPEG", quality=80)
    wanted = np.moveaxis(np.asarray(Image.open(io.BytesIO(content))), -1, 0)
    np.testing.assert_array_equal(decode("jpg", content, image_size=8), wanted)


def test_a_wide_image_is_cut_around_its_centre_or_squashed():
    pixels = np.repeat(noise(4, 10, 3), 2, axis=0).repeat(2, axis=1)  # 8 x 20
    content = saved(Image.fromarray(pixels))
    cut = decode("png", content, image_size=8)
    np.testing.assert_array_equal(cut, np.moveaxis(pixels[:, 6:14], -1, 0))
    squashed = decode("png", content, image_size=4, image_fit="squash")
    wanted = np.asarray(Image.fromarray(pixels).resize((4, 4), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(squashed, np.moveaxis(wanted, -1, 0))


def test_transparency_lies_over_white():
    pixels = noise(6, 6, 4)
    alpha = pixels[..., 3:] / 255
    wanted = np.moveaxis(pixels[..., :3] * alpha + 255 * (1 - alpha), -1, 0)
    np.testing.assert_allclose(decode("png", saved(Image.fromarray(pixels, "RGBA")), image_size=6), wanted, atol=0.51)
    palette = Image.new("P", (3, 3), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert (decode("gif", saved(palette, "GIF", transparency=1), image_size=3) == 255).all()
    assert (decode("gif", saved(palette, "GIF"), image_size=3) == 9).all()


def test_grey_is_one_level():
    pixels = noise(4, 4)
    np.testing.assert_array_equal(decode("png", saved(Image.fromarray(pixels)), image_size=4, image_mode="L"), pixels)
    assert decode("png", saved(Image.fromarray(pixels)), image_size=4).shape == (3, 4, 4)
    deep = (pixels.astype(np.uint16) << 8) + 77
    np.testing.assert_array_equal(decode("png", saved(Image.fromarray(deep)), image_size=4, image_mode="L"), pixels)


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (6, 3), (8, 1), (3, 2)])
def test_images_stand_upright_as_their_exif_says(orientation, turn):
    pixels = noise(4, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(decode("png", content, image_size=4), np.moveaxis(np.rot90(pixels, turn), -1, 0))


def bomb(side: int) -> bytes:
    """Return a PNG of a few bytes that claims a square of black pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8193, 10_000, 100_000])
def test_an_image_that_claims_billions_of_pixels_is_not_unpacked(side):
    assert side**2 > MOST_PIXELS
    with modest(20_000_000), pytest.raises(ValueError, match="has more than 67,108,864 pixels"):
        decoded_image(bomb(side), (8, 8), "RGB", "crop")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        bomb(64),
        saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
        saved(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"),
    ],
    ids=["empty", "program", "pixels missing", "float", "int32"],
)
def test_what_is_no_image_is_said(content):
    with pytest.raises(ValueError, match="is no image, or a damaged one"):
        decode("png", content)


@QUICK
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), length=st.integers(4, 12))
def test_a_text_is_cut_between_two_characters(text, length):
    whole = text.strip().encode()
    if not whole:
        with pytest.raises(ValueError, match="is empty"):
            decode("txt", text.encode(), text_length=length)
        return
    item = decode("txt", text.encode(), text_length=length).tobytes()
    kept = item.rstrip(b"\0")
    assert whole.startswith(kept)
    rest = whole[len(kept) :].decode()  # it begins with a character too
    assert not rest or len(kept) + len(rest[0].encode()) > length
    found = decoder_of(part_of("v", "txt", []), WebdatasetSettings(text_length=length))(text.encode())
    assert found.cut_from == (len(whole) if len(whole) > length else 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff", "is no UTF-8"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a\0b", "a character 0"),
        ("\u3042".encode(), "begins with"),
    ],
)
def test_what_is_no_text_is_said(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode("txt", content, text_length=2)


RECORD = {"name": " A b ", "a": {"b": {"c": "deep"}, "n": 3}, "a.d": "dotted", "list": ["x", "y", 3], "size": [1, 2.5],
          "none": None, "yes": True, "many": [[1]], "half": "\ud800", "nan": float("nan"), "huge": 10**400}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "text"),
    [("name", "A b"), ("a.b.c", "deep"), ("a.d", "dotted"), ("list", "x y 3"), ("a.n", "3"), ("size", "1 2.5")],
)
def test_a_field_of_json_is_a_text(field, text):
    item = decode(f"json:{field}", json.dumps(RECORD).encode(), text_length=8)
    assert item.tobytes() == text.encode().ljust(8, b"\0")


@pytest.mark.parametrize(("field", "numbers"), [("a.n", 3.0), ("size", [1.0, 2.5])])
def test_a_field_of_json_is_numbers_if_asked(field, numbers):
    item = decode(f"meta.json:{field}", json.dumps(RECORD).encode(), json_numbers=[field])
    np.testing.assert_array_equal(item, np.array(numbers), strict=True)


@pytest.mark.parametrize(
    ("field", "reason", "is_number"),
    [
        ("nothing", "no such field", False),
        ("a.x", "no such field", False),
        ("name.x", "no such field", False),
        ("none", "is no text", False),
        ("yes", "is no text", False),
        ("a", "is no text", False),
        ("many", "is no text", False),
        ("half", "half a character", False),
        ("name", "is no number", True),
        ("yes", "is no number", True),
        ("nan", "NaN or infinite", True),
        ("huge", "NaN or infinite", True),
    ],
)
def test_a_field_that_is_neither_is_said(field, reason, is_number):
    with pytest.raises(ValueError, match=reason):
        decode(f"json:{field}", json.dumps(RECORD).encode(), json_numbers=[field] if is_number else [])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_is_said(content):
    with pytest.raises(ValueError, match="is no JSON"):
        decode("json:n", content)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "uint32", "int64", "float16", "float32", ">f8", "<i4"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_what_was_saved(dtype, shape, order):
    array = np.asarray(np.random.default_rng(0).uniform(0, 100, shape)).astype(dtype, order=order)
    item = decode("depth.npy", npy(array))
    np.testing.assert_array_equal(item, array)
    assert item.dtype.isnative


def test_arrays_unlike_the_first_are_said():
    first = npy(np.zeros(3, np.float32))
    decoder = decoder_of(part_of("v", "npy", []), WebdatasetSettings()).like(first)
    for other in (np.zeros(4, np.float32), np.zeros(3, np.float64), np.zeros((3, 1), np.float32)):
        with pytest.raises(ValueError, match=r"is not float32\[3\], as the first is"):
            decoder(npy(other))


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no .npy"),
        (npy(np.zeros(3))[:-1], "no .npy"),
        (npy(np.array([{}]), allow_pickle=True), "no .npy"),
        (header("(1000000000000,)"), "no .npy"),
        (header("(-1,)"), "no .npy"),
        (header("(-2, -2)") + bytes(16), "no .npy"),
        (header("(__import__('os').system('true'),)"), "no .npy"),
        (npy(np.zeros(0)), "no number"),
        (npy(np.array(["a"])), "not numbers"),
        (npy(np.zeros(2, complex)), "not numbers"),
        (npy(np.zeros(2, np.uint64)), "not numbers"),
        (npy(np.array([1.0, np.nan])), "NaN or infinite"),
        (npy(np.array([1.0, np.inf], np.float16)), "NaN or infinite"),
        (npy(np.zeros((1,) * 33)), "more than 32 axes"),
    ],
)
def test_what_is_no_array_of_numbers_is_said(content, reason):
    with modest(20_000_000), pytest.raises(ValueError, match=reason):
        decode("npy", content)


@pytest.mark.parametrize(("content", "label"), [(b"7\n", 7), (b" 007 ", 7), (b"262143", 262143)])
def test_a_label_is_an_integer(content, label):
    assert decode("cls", content) == label


@pytest.mark.parametrize("content", [b"", b"-1", b"1.0", b"dog", b"262144", b"9" * 900, "\u0663".encode(), b"1_0"])
def test_what_is_no_label_is_said(content):
    with pytest.raises(ValueError, match="is no integer from 0 to 262,143"):
        decode("cls", content)


@pytest.fixture
def words():
    """A tokenizer that counts letters of words, and some that fail."""
    register_tokenizer("words", lambda text: [len(word) for word in text.split()])
    register_tokenizer("zero", lambda text: [0, 1])
    register_tokenizer("real", lambda text: [0.5])
    register_tokenizer("broken", lambda text: [][0])
    register_tokenizer("silent", lambda text: [])


@pytest.mark.usefixtures("words")
def test_a_text_is_the_tokens_of_a_tokenizer():
    item = decode("txt", b"a plain word", tokenizer="words", text_length=4)
    np.testing.assert_array_equal(item, np.array([1, 5, 4, 0], np.int32), strict=True)
    cut = decoder_of(part_of("v", "txt", []), WebdatasetSettings(tokenizer="words", text_length=2))(b"a plain word")
    assert (cut.array.tolist(), cut.cut_from, cut.largest) == ([1, 5], 3, 5)


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize("name", ["zero", "real", "broken"])
def test_a_tokenizer_that_fails_is_named(name):
    with pytest.raises(BadInputError, match=f"the tokenizer {name} "):
        decode("txt", b"a plain word", tokenizer=name)


@pytest.mark.usefixtures("words")
def test_a_text_without_tokens_is_said():
    with pytest.raises(ValueError, match="has no tokens"):
        decode("txt", b"a plain word", tokenizer="silent")


@pytest.mark.usefixtures("words")
def test_two_tokenizers_have_two_names():
    with pytest.raises(BadInputError, match="two tokenizers are named 'words'"):
        register_tokenizer("words", len)
