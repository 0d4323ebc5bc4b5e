"""A model in a folder: it comes back as it was, by this package and by others, and what cannot be is refused."""

import hashlib
import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save as as_safetensors

import pcl
from pcl.encoders.build import build_model
from pcl.errors import BadInputError, DamagedDataError
from pcl.storage.stored import sealed
from pcl.train.checkpoint import content_of, save_checkpoint
from pcl.train.model_folder import About, Side
from pcl.train.trained import trained
from tests.modest import modest
from tests.train.test_runs import LIES_OF_SPEC, NOT_FINITE, make_pairs, make_spec

KNOWN = About(Side("numbers"), Side("labels", [3, 0, 1]), {}, {"run": "mine", "step": 7})
WEIGHT = "encoder_u.1.map.weight"


def model_of(spec, about=KNOWN, seed=3):
    return trained(spec, dict(build_model(spec, seed).state_dict()), about)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tilting", ["cosine", "inner_product", "squared_distance", "potentials"])
def test_a_saved_model_comes_back_with_the_same_bits_and_the_same_draws(tmp_path, dtype, tilting):
    model = model_of(make_spec(dtype, tilting))
    model.save(tmp_path / "model")
    again = pcl.load(tmp_path / "model")
    assert (again.spec, again.about) == (model.spec, model.about)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        assert again.state_dict()[name].dtype == value.dtype
    u, v = make_pairs()
    assert torch.equal(again.log_tilting(u, v), model.log_tilting(u, v))
    one, other = (
        m.conditional("u_given_v", u).sample(m.features_v(v), 50, torch.Generator().manual_seed(1))
        for m in (model, again)
    )
    assert torch.equal(one, other)


def test_other_programs_read_it_with_numpy_and_json(tmp_path):
    """The log tilting of linear encoders from the two files alone."""
    model = model_of(make_spec("float64"))
    model.save(tmp_path)
    weights, about = load_file(tmp_path / "model.safetensors"), json.loads((tmp_path / "model.json").read_text())
    u, v = (items.double().numpy() for items in make_pairs())
    embeddings = []
    for name, items in (("u", u), ("v", v)):
        spec = about["spec"][f"encoder_{name}"]
        standard = (items * about[name]["scale_factor"] - np.array(spec["mean"])) / np.array(spec["std"])
        matrix = weights[f"encoder_{name}.1.map.weight"]
        embeddings.append(standard.reshape(len(items), -1) @ matrix.T)
        assert about[name]["shape"] == list(items.shape[1:])
        assert about["tensors"][f"encoder_{name}.1.map.weight"] == {"shape": list(matrix.shape), "dtype": "float64"}
    found = embeddings[0] @ embeddings[1].T / about["temperature"]
    np.testing.assert_allclose(model.log_tilting(u, v), found, rtol=1e-12)


def test_one_network_of_both_sides_stays_one(tmp_path):
    side = {"kind": "mlp", "shape": [3], "widths": [4], "mean": 0.5}
    spec = make_spec() | {"encoder_u": side, "encoder_v": side | {"mean": 2.0}, "share": True}
    model = model_of(spec)
    model.save(tmp_path)
    again = pcl.load(tmp_path)
    assert again.encoder_u[-1] is again.encoder_v[-1]
    u = make_pairs()[0]
    assert torch.equal(again.log_tilting(u, u), model.log_tilting(u, u))


def test_folders_of_earlier_versions_are_still_read(tmp_path):
    model = model_of(make_spec())
    save_checkpoint(tmp_path, content_of(model, {"state": {}, "param_groups": []}, 0, model.spec, ""))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    again = pcl.load(tmp_path)
    assert torch.equal(again.log_tilting(*make_pairs()), model.log_tilting(*make_pairs()))
    with pytest.raises(BadInputError, match="holds a model already"):
        model.save(tmp_path)


def test_frequencies_of_labels_are_the_prior():
    model = model_of(make_spec())
    assert model.log_prior("v").exp().tolist() == [0.75, 0.0, 0.25]
    with pytest.raises(ValueError, match="knows no frequencies of u"):
        model.log_prior("u")


# what comes from outside


def rewrite(folder: Path, change=lambda content: None, weights=None) -> None:
    """Change what a folder says and holds, as somebody would who keeps the hashes right."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
        content["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    change(content)
    path.write_text(json.dumps(sealed(content)))


@pytest.fixture
def folder(tmp_path):
    model_of(make_spec()).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("lie", LIES_OF_SPEC)
def test_a_specification_that_does_not_fit_the_weights_builds_nothing(folder, lie):
    rewrite(folder, lambda content: LIES_OF_SPEC[lie](content["spec"]))
    began = time.monotonic()
    with modest(), pytest.raises((DamagedDataError, BadInputError), match=r"model\.json") as noticed:
        pcl.load(folder)
    assert time.monotonic() - began < 5
    assert str(noticed.value).isprintable()


WEIGHTS = {
    "not finite": {WEIGHT: NOT_FINITE},
    "of another shape": {WEIGHT: torch.zeros(4, 4)},
    "of another dtype": {WEIGHT: torch.zeros(4, 3, dtype=torch.float64)},
    "of more": {"other": torch.zeros(3)},
}


@pytest.mark.parametrize("change", WEIGHTS)
def test_weights_that_are_not_of_the_model_are_refused(folder, change):
    weights = dict(pcl.load(folder).state_dict()) | WEIGHTS[change]
    rewrite(folder, weights=as_safetensors(weights))
    with pytest.raises(DamagedDataError, match=r"model\.(json|safetensors)"):
        pcl.load(folder)


def header(content: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if size is None else size) + content


FILES = {
    "empty": b"",
    "short": b"\x00\x00",
    "random": bytes(range(200)),
    "of a header that is not there": header(b"{}", 2**63),
    "of a large header": header(b" " * 10, 1 << 25),
    "of a tensor larger than the file": header(
        json.dumps({WEIGHT: {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
    ),
    "of many values in few bytes": header(
        json.dumps({WEIGHT: {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4]}}).encode()
    )
    + bytes(4),
    "of an unknown dtype": header(
        json.dumps({WEIGHT: {"dtype": "os.system", "shape": [1], "data_offsets": [0, 4]}}).encode()
    )
    + bytes(4),
    "a checkpoint": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_safetensors_is_refused(folder, kind):
    rewrite(folder, weights=FILES[kind])
    with modest(), pytest.raises(DamagedDataError, match=r"model\.safetensors holds no weights"):
        pcl.load(folder)


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["bit", "half", "gone"])
def test_damage_is_noticed(folder, file, damage):
    content = (folder / file).read_bytes()
    half = len(content) // 2
    changed = {"bit": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :], "half": content[:half]}
    if damage == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(changed[damage])
    with pytest.raises((DamagedDataError, BadInputError)):
        pcl.load(folder)


@pytest.mark.parametrize("kind", ["os.system", "os", "tests.plugins.mine", "/etc/passwd", "pcl.plugins"])
def test_names_in_it_import_nothing(folder, kind):
    pcl.load(folder)  # imports what loading takes
    rewrite(folder, lambda content: content["spec"]["encoder_u"].update(kind=kind))
    rewrite(folder, lambda content: content.update(plugins={"os": "0" * 64, "\x1b[2J": ""}))
    before = set(sys.modules)
    with pytest.raises(BadInputError, match=r"is not known.*plugins=\['os\.py', '\\+x1b\[2J\.py'\]") as refused:
        pcl.load(folder)
    assert set(sys.modules) == before
    assert str(refused.value).isprintable()


def test_another_schema_is_named(folder):
    rewrite(folder, lambda content: content.update(schema_version=2))
    with pytest.raises(DamagedDataError, match="schema version 2, this program reads 1"):
        pcl.load(folder)
