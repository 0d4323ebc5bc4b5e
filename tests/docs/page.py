"""The page on one's own pairs, taken apart: its blocks, and small data of which they speak."""

import io
import re
import tarfile
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "own_pairs.md").read_text()
NUM_PAIRS = 400


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        language: of the block.
        text: in it.
        line: of the page, at which it begins.
    """

    language: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """The name of the file that the block shows, by its first line; empty: it is no file."""
        found = re.match(r"# (\w+\.(?:py|yaml))\n", self.text)
        return found[1] if found else ""


def blocks(page: str) -> list[Block]:
    r"""Return the blocks of code of a page.

    Example:
        >>> blocks("text\n```sh\npcl --version\n```")
        [Block(language='sh', text='pcl --version\n', line=2)]
    """
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S)
    return [Block(one[1], one[2], page[: one.start()].count("\n") + 1) for one in found]


def example(name: str):
    """Return the module of a script of docs/examples."""
    spec = spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_data(folder: Path) -> None:
    """Write the files that the page names into a folder."""
    u, v, places = example("fit_arrays").make_pairs(NUM_PAIRS)
    np.save(folder / "u.npy", u)
    np.save(folder / "v.npy", v)
    np.save(folder / "short.npy", v[:-1])
    np.savez(folder / "pairs.npz", u=u, v=v)
    both = xr.Dataset({"gauges": (("sample", "gauge"), u), "beacons": (("sample", "beacon"), v)})
    both.to_netcdf(folder / "pairs.nc")
    both.to_zarr(folder / "pairs.zarr", consolidated=False)
    table = {f"gauge_{i}": u[:, i] for i in range(20)} | {f"beacon_{i}": v[:, i] for i in range(7)}
    kind, day = (places[:, 1] > 0).astype(int), np.arange(NUM_PAIRS) // 20
    pd.DataFrame(table | {"kind": kind, "day": day}).to_csv(folder / "table.csv", index=False)
    (folder / "tars").mkdir()
    write_tar(folder / "tars" / "first.tar", 120)


def write_tar(path: Path, num_samples: int) -> None:
    """Write a tar of images of one colour, with its name as their text."""
    colours = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    generator = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(num_samples):
            name = list(colours)[number % 3]
            noise = generator.integers(-30, 30, (48, 40, 3))
            image = io.BytesIO()
            Image.fromarray((np.array(colours[name]) + noise).clip(0, 255).astype(np.uint8)).save(image, "JPEG")
            for suffix, content in (("jpg", image.getvalue()), ("txt", f"{name}, number {number}".encode())):
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def let_timm_be_imported() -> None:
    """Declare the operators that timm's import names: a torchvision for GPUs beside a torch for CPUs lacks them."""
    global declared
    if not hasattr(torch.ops.torchvision, "nms"):
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            declared = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


declared = None
