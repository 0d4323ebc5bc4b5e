"""What lies in storage is data: it executes nothing, leads nowhere else, and learns no secret."""

import dataclasses
import hashlib
import io
import json
import pickle
import re
import runpy
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from botocore.exceptions import EndpointConnectionError

import pcl
from pcl.commands.ending import finish
from pcl.config.load import Config, load_config
from pcl.config.schema import HeadConfig
from pcl.data.loader import iterate_split
from pcl.data.manifest import load_manifest
from pcl.encoders.build import build_model
from pcl.errors import BadInputError, DamagedDataError
from pcl.storage.place import place
from pcl.storage.stored import sealed
from pcl.train.runs import checkpoints, claim
from pcl.train.trained import trained
from tests.s3 import SECRET, WRONG_KEY, s3_server

ROOT = Path(__file__).resolve().parents[1]
GAUSSIAN = ROOT / "configs" / "gaussian.yaml"


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def sung(tmp_path) -> Path:
    """The file that shows that something was executed; it works."""
    path = tmp_path / "sung"
    pickle.loads(pickle.dumps(Canary(path)))
    path.unlink()
    return path


# no code from storage


def as_torch_saves(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def as_a_zip(content: Any) -> bytes:
    """Return what torch would save, made by hand."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return stream.getvalue()


@pytest.mark.parametrize("kind", [as_torch_saves, as_a_zip, pickle.dumps], ids=["torch", "zip", "pickle"])
@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_checkpoint_executes_nothing(sung, tmp_path, kind, where):
    content = kind({"model": Canary(sung), "spec": {}, "step": 1, "optimizer": {}, "config_hash": "", "versions": {}})
    with s3_server() as s3:
        run = tmp_path / "run" if where == "folder" else place(f"{s3.address}/run")
        pcl.storage.place.write_bytes(run / "checkpoint_00000001" / "state.pt", content)
        with pytest.raises(DamagedDataError, match=r"state\.pt"):
            pcl.load(run)
    assert not sung.exists()


@pytest.mark.parametrize("kind", [as_torch_saves, as_a_zip, pickle.dumps], ids=["torch", "zip", "pickle"])
def test_the_folder_of_a_model_executes_nothing(sung, tmp_path, kind):
    """Whatever lies in it under the names of its files, programs of encoders too."""
    encoder = {"kind": "linear", "shape": [3]}
    tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
    spec = {"embedding_dim": 2, "encoder_u": encoder, "encoder_v": encoder, "tilting": "cosine", "temperature": tau}
    model = trained(spec | {"dtype": "float32"}, dict(build_model(spec | {"dtype": "float32"}).state_dict()))
    model.save(tmp_path / "model")
    for name in ("encoder_u.pt2", "encoder_v.pt2", "README.md", "state.pt"):
        (tmp_path / "model" / name).write_bytes(kind(Canary(sung)))
    assert torch.equal(pcl.load(tmp_path / "model").encode_u(torch.eye(3)), model.encode_u(torch.eye(3)))
    (tmp_path / "model" / "model.safetensors").write_bytes(kind({"encoder_u.1.map.weight": Canary(sung)}))
    with pytest.raises(DamagedDataError, match=r"model\.safetensors"):
        pcl.load(tmp_path / "model")
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    content["weights_sha256"] = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "model" / "model.json").write_text(json.dumps(sealed(content)))
    with pytest.raises(DamagedDataError, match=r"model\.safetensors holds no weights"):
        pcl.load(tmp_path / "model")
    assert not sung.exists()


@pytest.mark.parametrize(
    "text",
    [
        "storage: !!python/object/apply:pathlib.Path.touch [{sung}]",
        "storage: !!python/object/apply:os.system ['touch {sung}']",
        "storage: !!python/object/new:subprocess.Popen [[touch, {sung}]]",
        "seed: [!!python/object/apply:os.system ['touch {sung}']]",
        "storage: !!python/name:os.system ''",
    ],
)
def test_a_configuration_executes_and_reads_nothing(sung, tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(GAUSSIAN.read_text() + text.replace("{sung}", str(sung)))
    with pytest.raises(BadInputError, match=rf"{path}: line \d+: tags") as refused:
        load_config(path)
    assert not sung.exists()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${oc.decode:${oc.env:HOME}}", "$HOME"])
def test_a_configuration_reads_no_environment(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(f"{GAUSSIAN.read_text()}\nstorage: {text}\n")
    assert load_config(path).storage == load_config(GAUSSIAN, [f"storage={text}"]).storage == str(Path(text).absolute())


# shards


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def members_of(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]


def promise(root: Path, name: str) -> None:
    """Make the manifest agree with a shard, as somebody would who can write there."""
    manifest, content = json.loads((root / "manifest.json").read_text()), (root / name).read_bytes()
    for shard in manifest["splits"]["test"]:
        if shard["name"] == name:
            shard |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (root / "manifest.json").write_text(json.dumps(sealed(manifest)))


@pytest.fixture
def shards(make_shards) -> Path:
    return make_shards()[0]


def read(root: Path) -> int:
    """Read all pairs of a split; return their number."""
    return sum(len(u) for u, _ in iterate_split(root, load_manifest(root), "test"))


def test_objects_in_a_shard_are_refused_and_not_executed(sung, shards):
    stream, path = io.BytesIO(), shards / "test-000000.tar"
    np.save(stream, np.array([Canary(sung)] * 5, dtype=object), allow_pickle=True)
    members = [(m, stream.getvalue() if m.name.endswith("u.npy") else content) for m, content in members_of(path)]
    write_tar(path, members)
    promise(shards, path.name)
    with pytest.raises(DamagedDataError, match=r"test-000000\.tar"):
        read(shards)
    assert not sung.exists()


def renamed(prefix: str) -> Callable[[tarfile.TarInfo], None]:
    def rename(member: tarfile.TarInfo) -> None:
        member.name = prefix + member.name

    return rename


def linked(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def link(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = kind, "/etc/passwd"

    return link


@pytest.mark.parametrize(
    "change",
    [renamed("../"), renamed("/"), renamed("../../etc/"), linked(tarfile.SYMTYPE), linked(tarfile.LNKTYPE)],
    ids=["parent", "absolute", "far", "symbolic link", "hard link"],
)
def test_members_of_a_shard_write_nothing_and_lead_nowhere(shards, tmp_path, change, monkeypatch):
    """Their names are keys: the tar is read and never unpacked. A link holds no array."""
    monkeypatch.chdir(shards)
    path = shards / "test-000000.tar"
    members = members_of(path)
    is_link = change.__name__ == "link"
    for number, (member, _) in enumerate(members):
        change(member)
        members[number] = (member, b"") if is_link else members[number]
    write_tar(path, members)
    promise(shards, path.name)
    before = {file for folder in (shards, shards.parent, tmp_path) for file in folder.iterdir()}
    if is_link:
        with pytest.raises(DamagedDataError, match=r"test-000000\.tar holds 0 pairs"):
            read(shards)
    else:
        assert read(shards) == load_manifest(shards).num_pairs("test")
    assert {file for folder in (shards, shards.parent, tmp_path) for file in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["../test-000000.tar", "/etc/passwd", "test-000000.tar/../../a", "", "."])
def test_names_in_a_manifest_stay_in_their_folder(shards, name):
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["splits"]["test"][0]["name"] = name
    (shards / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(DamagedDataError, match="names shard 0 of test"):
        load_manifest(shards)


# runs


@pytest.mark.parametrize("name", ["../other", "/etc", "a/b", "..", ".", "", "a\tb", "s3://bucket/a"])
def test_a_run_stays_in_its_storage(name):
    with pytest.raises(BadInputError, match="name="):
        load_config(GAUSSIAN, [f"name={name}"])


def test_the_record_of_checkpoints_leads_nowhere_else(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other" / "checkpoint_00000007"
    claim(run, {}, "")
    for directory in (other, run / "checkpoint_00000001"):
        directory.mkdir(parents=True)
        (directory / "state.pt").touch()
    found = ["../other/checkpoint_00000007", str(other), "checkpoint_00000001/../../other/checkpoint_00000007", 3, None]
    results = [{"checkpoint_dir_name": name} for name in found]
    (run / "checkpoint_manager_snapshot.json").write_text(json.dumps({"checkpoint_results": results}))
    assert checkpoints(run) == []


# secrets


def keys_of(schema: type, prefix: str = "") -> list[str]:
    keys = []
    for name, kind in get_type_hints(schema).items():
        keys += keys_of(kind, f"{prefix}{name}.") if dataclasses.is_dataclass(kind) else [f"{prefix}{name}"]
    return keys


@pytest.mark.parametrize("schema", [Config, HeadConfig])
def test_no_key_of_a_configuration_asks_for_a_secret(schema):
    asks = re.compile(
        r"secret|password|passwd|credential|api_?key|access_?key|auth|(?<!_per_)token(?!s|_)", re.IGNORECASE
    )
    assert [key for key in keys_of(schema) if asks.search(key)] == []


def run_job(monkeypatch, capfd, *arguments: str) -> tuple[int, str]:
    """Run the theory check in this process, without its tasks; return its exit code and all that it says."""
    job = str(ROOT / "jobs" / "check_theory.py")
    monkeypatch.setattr(sys, "argv", [job, str(GAUSSIAN), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(job, run_name="__main__")
    output, errors = capfd.readouterr()
    return ended.value.code, output + errors


@pytest.mark.parametrize("bucket", ["bucket", "nobucket"])
def test_storage_that_refuses_ends_a_job_with_one_line_that_holds_no_secret(monkeypatch, capfd, bucket):
    with s3_server() as s3:
        s3.refusal = WRONG_KEY if bucket == "bucket" else None
        code, said = run_job(monkeypatch, capfd, f"storage=s3://{bucket}/runs")
    assert code == 1
    forbidden = "Forbidden: choose another place, or have that permitted"
    reason = forbidden if bucket == "bucket" else "The specified bucket does not exist"
    assert re.fullmatch(rf"error: s3://{bucket}\S*: {reason}", said.strip())
    assert SECRET not in said


def test_what_a_run_keeps_of_its_beginning_holds_no_secret():
    with s3_server() as s3:
        run = place(f"{s3.address}/run")
        claim(run, {"seed": 0}, "seed: 0\n")
        for name in pcl.storage.place.names(run):
            content = pcl.storage.place.read_bytes(run / name)
            assert content
            assert SECRET.encode() not in content


@pytest.mark.parametrize(
    "error", [EndpointConnectionError(endpoint_url="http://host"), PermissionError(13, "no", "/a")]
)
def test_other_access_to_storage_ends_a_job_with_one_line_too(capsys, error):
    """TensorBoard has its own to S3, where boto3 is installed."""

    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        finish(fail)
    assert ended.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_mistake_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        finish(lambda: 1 / 0)
