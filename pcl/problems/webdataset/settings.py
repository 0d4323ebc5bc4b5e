"""Settings of pairs from WebDataset tars."""

__all__ = ["WebdatasetSettings"]

from dataclasses import dataclass

from pcl.settings import setting

WHAT = (
    "an extension (jpg, png, left.png, txt, npy; cls: an integer label), or json:FIELD, dotted where fields lie in "
    "each other"
)


@dataclass
class WebdatasetSettings:
    """``data.webdataset``."""

    paths: list[str] = setting(
        "tar files, patterns such as dir/*.tar or s3://bucket/train-{000..099}.tar, and folders of them",
        [],
        is_input=True,
        is_identity=False,  # where tars lie does not matter: their names and SHA-256 do, as provenance
    )
    u: str = setting(f"what of a sample is u: {WHAT}", "")
    v: str = setting("what of a sample is v, likewise", "")
    image_size: int | list[int] = setting("pixels of an image: height and width, or [height, width]", 64)
    image_mode: str = setting("of images: three colours, or one grey", "RGB", choices=("RGB", "L"))
    image_fit: str = setting(
        "an image of another shape is scaled until it covers its size and cut around the centre, or is distorted",
        "crop",
        choices=("crop", "squash"),
    )
    text_length: int = setting(
        "bytes of UTF-8, or tokens, of a text: longer ones are cut, shorter ones followed by 0",
        64,
        at_least=1,
        at_most=10**6,
    )
    tokenizer: str = setting("name of a plugin's tokenizer; empty: a text is its bytes", "")
    json_numbers: list[str] = setting(
        "fields of json that are a number, or a list of so many; any other is a text, lists joined by blanks", []
    )
    split: str = setting(
        "samples are held out by a hash of their key, or those of whole tars", "key", choices=("key", "tar")
    )
    test_fraction: float = setting(
        "held out for testing, by a hash of data.seed and the key; pairs of the same bytes fall on one side",
        0.2,
        above=0,
        at_most=0.99,
    )
    test_tars: list[str] = setting("patterns of the tars that are held out, such as val-*.tar, if split=tar", [])
    duplicates: str = setting("of pairs of the same bytes all are kept, or one", "keep", choices=("keep", "drop"))
