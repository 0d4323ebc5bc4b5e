"""Two parts of the samples of WebDataset tars: images, texts, numbers, labels."""

__all__ = ["PROBLEM"]

from dataclasses import replace

import numpy as np

from pcl.data.source import Source, SourceContext
from pcl.problems.problem import Problem
from pcl.problems.webdataset.settings import WebdatasetSettings


def make_source(settings: WebdatasetSettings, context: SourceContext) -> Source:
    """Return the pairs of the tars that settings name."""
    from pcl.problems.webdataset.source import webdataset_source  # it imports Pillow

    return webdataset_source(settings, context)


def read_item(settings: WebdatasetSettings, name: str, content: bytes) -> np.ndarray:
    """Return an image or a text as the shards of such tars hold it."""
    from pcl.problems.webdataset.decoding import decoder_of
    from pcl.problems.webdataset.parts import part_of

    part = part_of(f"data.webdataset.{name}", getattr(settings, name), settings.json_numbers)
    return decoder_of(replace(part, field=""), settings)(content).array


PROBLEM = Problem("webdataset", WebdatasetSettings, make_source, read_item=read_item)
