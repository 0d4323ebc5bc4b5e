"""Configuration: schema and files agree, layers merge in order, every mistake ends in one line that names its key."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pcl.config.identity import data_identity, experiment
from pcl.config.load import HEAD_DEFAULTS, Config, load_config, load_head_config, resolved_yaml
from pcl.config.page import page_of_keys
from pcl.config.schema import HeadConfig
from pcl.config.variants import load_sweep
from pcl.errors import BadInputError
from pcl.storage.place import place, write_bytes
from tests.config.keys import KEYS, kinds, plain, value, with_value
from tests.s3 import S3, SECRET, SLOW_DOWN, WRONG_KEY, s3_server

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.yaml") if path.name != "head.yaml")
SWEEPS = [path for path in FILES if "\nvariants:" in path.read_text()]
RUN_FILES = [path for path in FILES if path not in SWEEPS]


UNUSED = (  # sections of sources and encoders that configs/gaussian.yaml does not name
    *("data.streamfunction.", "data.ocean.", "data.arrays.", "data.webdataset."),
    *("model.transformer.", "model.linear_inverse.", "model.field_network."),
)
DEFAULTS = plain(yaml.safe_load(page_of_keys()))


def another(given: Any) -> Any:
    """Return another value of the same type; a list holds one item more."""
    match given:
        case bool():
            return not given
        case str():
            return given + "x"
        case list():
            return [*given, given[0] if given else "x"]
        case dict():
            return given | {"x": 1}
    return (given or 0) + 1


def with_another(config: Config, key: str) -> Config:
    """Return a copy of a configuration with another value of the same type at one key."""
    special = {"workers.profile_steps": [1, 2], "data.source": "mnist"}
    other = special[key] if key in special else another(value(config, key))
    return with_value(config, key, other)


@pytest.fixture
def gaussian() -> Config:
    return load_config(CONFIGS / "gaussian.yaml")


def refusal(path: Path | str, *overrides: str) -> str:
    with pytest.raises(BadInputError) as refused:
        load_config(path, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# files


def test_schema_and_default_yaml_have_the_same_keys():
    assert sorted(DEFAULTS) == KEYS


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_every_run_file_loads_and_holds_only_what_differs(path):
    given, config = plain(yaml.safe_load(path.read_text())), load_config(path)
    assert {key for key, own in given.items() if DEFAULTS[key] == own} == set()
    for key, expected in (DEFAULTS | given).items():
        if key not in ("storage", "data.root", "data.shards", "data.ocean.paths", "data.webdataset.paths"):
            found = value(config, key)
            # settings of what is chosen have the defaults of that
            assert expected.items() <= found.items() if isinstance(found, dict) else found == expected, key


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_stands_for_runs_that_are_trained_in_one_process_each(path):
    runs = load_sweep(path, ["seeds=[0]"]).runs
    assert len({run.config.name for run in runs}) == len(runs) > 1
    assert {run.config.workers.num_workers for run in runs} == {1}


def test_overrides_win_over_the_file_which_wins_over_the_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text((CONFIGS / "gaussian.yaml").read_text() + "seed: 5\nworkers: {num_workers: 4}\n")
    config = load_config(path, ["seed=7", "train.epochs=2", "train.epochs=3", "evaluation.recall_at=[2,4]"])
    assert (config.seed, config.train.epochs, config.evaluation.recall_at) == (7, 3, [2, 4])
    assert (config.workers.num_workers, config.workers.cpus_per_worker) == (4, DEFAULTS["workers.cpus_per_worker"])


def test_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    config = load_config(CONFIGS / "gaussian.yaml", ["storage=a/../b", "data.root=~/raw", "data.shards=/s"])
    assert (config.storage, config.data.root, config.data.shards) == (f"{tmp_path}/b", "/home/someone/raw", "/s")


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_the_resolved_yaml_gives_the_same_configuration(path, tmp_path):
    config = load_config(path, ["seed=3", "evaluation.recall_at=[2]"])
    (tmp_path / "config.yaml").write_text(resolved_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config
    assert sorted(plain(yaml.safe_load(resolved_yaml(config)))) == KEYS


# mistakes


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epoch=3", "train.epoch"),
        ("a.b.c=1", "a"),
        ("data.gaussian_process.nope=1", "data.gaussian_process.nope"),
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=1.5", "train.epochs"),
        ("train.epochs=true", "train.epochs"),
        ("train.epochs=", "train.epochs"),
        ("train.epochs=[1", "train.epochs"),
        ("train=3", "train"),
        ("workers.use_gpu=perhaps", "workers.use_gpu"),
        ("evaluation.recall_at=5", "evaluation.recall_at"),
        ("evaluation.recall_at=[a]", "evaluation.recall_at"),
        ("storage=", "storage"),
        ("storage=~nobody-of-that-name/runs", "storage"),
        ("data.root=~nobody-of-that-name/raw", "data.root"),
        ("data.ocean.paths=[~nobody-of-that-name/*.nc]", "data.ocean.paths"),
        ("data.ocean.paths=['']", "data.ocean.paths"),
    ],
)
def test_unknown_keys_and_wrong_types_name_the_key(override, key):
    assert key in refusal(CONFIGS / "gaussian.yaml", override)


@pytest.mark.parametrize("given", ["evaluation.recall_at=[1, 5]", "model.settings_u={widths: [3]}"])
def test_what_a_shell_took_apart_is_to_be_quoted(given):
    assert "quote what holds spaces" in refusal(CONFIGS / "gaussian.yaml", *given.split())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "-1"),
        ("data.num_shards", "0"),
        ("data.record_pairs", "0"),
        ("model.embedding_dim", "0"),
        ("loss.weight_u_given_v", "-0.5"),
        ("loss.weight_v_given_u", "nan"),
        ("train.epochs", "0"),
        ("train.global_batch", "1"),
        ("train.num_lanes", "0"),
        ("train.shuffle_pairs", "0"),
        ("train.learning_rate", "0"),
        ("train.learning_rate", "nan"),
        ("train.learning_rate", "inf"),
        ("train.weight_decay", "-1"),
        ("train.warmup_steps", "-1"),
        ("train.gradient_clip", "-1"),
        ("train.log_every", "0"),
        ("train.checkpoint_every", "0"),
        ("workers.num_workers", "0"),
        ("workers.cpus_per_worker", "0"),
        ("workers.num_checkpoints", "0"),
        ("workers.max_failures", "-1"),
        ("evaluation.recall_at", "[]"),
        ("evaluation.recall_at", "[1,0]"),
        ("evaluation.block_pairs", "0"),
        ("evaluation.max_pairs", "-1"),
        ("model.temperature.initial", "1000"),
        ("model.temperature.minimum", "0"),
        ("model.temperature.maximum", "0.5"),
        ("model.temperature.maximum", "inf"),
        ("data.source", "cifar"),
        ("model.encoder_u", "resnet"),
        ("model.encoder_v", "resnet"),
        ("model.tilting", "dot"),
        ("loss.kind", "hinge"),
        ("train.schedule", "step"),
        ("train.precision", "fp8"),
        ("evaluation.split", "validation"),
        ("name", "a/b"),
        ("name", ".."),
        ("name", ""),
        ("name", "ä" * 101),
        ("name", "a\x1b[2Jb"),
    ],
)
def test_values_out_of_range_name_the_key(key, value):
    assert key.rpartition(".")[2] in refusal(CONFIGS / "gaussian.yaml", f"{key}={value}")


def test_choices_are_listed():
    assert "cosine, inner_product, squared_distance" in refusal(CONFIGS / "gaussian.yaml", "model.tilting=dot")


def test_a_loss_without_weights_names_both():
    message = refusal(CONFIGS / "gaussian.yaml", "loss.weight_u_given_v=0", "loss.weight_v_given_u=0")
    assert "loss.weight_u_given_v" in message
    assert "loss.weight_v_given_u" in message
    assert load_config(CONFIGS / "gaussian.yaml", ["loss.weight_u_given_v=0"]).loss.weight_v_given_u > 0


def test_an_override_without_equals_is_refused():
    assert "'train.epochs'" in refusal(CONFIGS / "gaussian.yaml", "train.epochs")


def test_missing_keys_are_all_named(tmp_path):
    (tmp_path / "run.yaml").write_text("# nothing\n")
    message = refusal(tmp_path / "run.yaml")
    assert [key for key, value in DEFAULTS.items() if value == "???" and key not in message] == []


@pytest.mark.parametrize("path", ["no/such/file.yaml", "configs"])
def test_a_missing_file_is_named(path):
    assert path in refusal(path)


@pytest.mark.parametrize(
    "content",
    [b"a: [1,\nb: }", b"- a\n- b", b"hello", b"3", b"3.5", b"\xff\xfe\x00\x81", b"seed: 1\nseed: 2", b"\ttrain: 3"],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert str(path) in refusal(path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: {epoch: 3}", "train.epoch"),
        ("train: {epochs: many}", "train.epochs"),
        ("train: {epochs: [1, 2]}", "train.epochs"),
        ("model: {temperature: {initial: {}}}", "model.temperature.initial"),
        ("train: null", "train"),
        ("train: 3", "train"),
        ("model: {temperature: 3}", "temperature"),
    ],
)
def test_a_mistake_in_a_file_names_file_and_key(tmp_path, text, key):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    message = refusal(path)
    assert str(path) in message
    assert key in message.replace(str(path), "")


# identity


@pytest.mark.parametrize("key", [key for key in KEYS if key != "plugins"])  # tests/plugins: it is what they hold
def test_the_experiment_is_all_that_changes_the_result(gaussian, key):
    changed = with_another(gaussian, key)
    of_training = key == "seed" or key.startswith(("data.", "model.", "loss.", "train."))
    matters = (
        of_training
        and not key.startswith(UNUSED)
        and key
        not in (
            "data.root",
            "data.shards",
            "data.cache",
            "data.cache_gb",
            "train.log_every",
            "train.checkpoint_every",
            "train.init_from",  # its content matters, by train.init_from_sha256
            "train.validate_every",
            "train.chunk_pairs",  # how the same gradient is computed
            "train.recompute",
            "train.compile",
        )
    )
    assert value(changed, key) != value(gaussian, key)
    assert (experiment(changed) != experiment(gaussian)) == matters
    assert (data_identity(changed) != data_identity(gaussian)) == (
        matters and key.startswith("data.") and not key.startswith("data.augment.")
    )


def test_settings_of_another_source_do_not_matter():
    config = load_config(CONFIGS / "mnist.yaml")
    for key in (key for key in KEYS if key.startswith("data.gaussian_process.")):
        assert experiment(with_another(config, key)) == experiment(config)


def test_the_experiment_is_flat_and_json(gaussian):
    flat = experiment(gaussian)
    assert json.loads(json.dumps(flat)) == flat
    assert all(flat[key] == value(gaussian, key) for key in flat)


def test_autocast_needs_gpus():
    assert "train.precision=bf16" in refusal(CONFIGS / "gaussian.yaml", "train.precision=bf16", "workers.use_gpu=false")


def test_the_schema_of_the_head_and_its_page_have_the_same_keys():
    assert sorted(plain(yaml.safe_load(HEAD_DEFAULTS.read_text()))) == sorted(kinds(HeadConfig))


# storage


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def test_storage_may_be_in_s3():
    assert load_config(CONFIGS / "gaussian.yaml", ["storage=s3://bucket/runs/"]).storage == "s3://bucket/runs"
    assert load_head_config(CONFIGS / "head.yaml", ["storage=s3://bucket/runs"]).storage == "s3://bucket/runs"


@pytest.mark.parametrize("address", ["gs://bucket/runs", "http://host/runs", "s3://bucket/../runs", "s3://"])
def test_storage_of_other_kinds_is_refused(address):
    message = refusal(CONFIGS / "gaussian.yaml", f"storage={address}")
    assert message == f"storage={address}: give a folder that every node sees, or s3://bucket/prefix"


@pytest.mark.parametrize("character", "?#@*[]")
def test_names_that_are_no_address_are_refused_in_s3(character):
    name = f"name=a{character}b"
    assert load_config(CONFIGS / "gaussian.yaml", [name]).name == name[5:]
    assert "in S3 a name holds none of" in refusal(CONFIGS / "gaussian.yaml", name, "storage=s3://bucket/runs")


@pytest.mark.parametrize("override", ["data.root={}", "data.arrays.u={}", "data.ocean.paths=['{}']"])
def test_raw_data_may_be_in_object_storage(override):
    key = override.partition("=")[0].split(".")[1:]
    for address in ("s3://bucket/data/x-{00..03}[ab]*.nc", "https://host:8080/x.nc"):
        data = load_config(CONFIGS / "gaussian.yaml", [override.format(address)]).data
        value = getattr(data, key[0]) if len(key) == 1 else getattr(data.sections[key[0]], key[1])
        assert value == ([address] if isinstance(value, list) else address)
    for address in ("ftp://host/data", "s3://me:word@bucket/data", "gs://bucket/data"):
        message = refusal(CONFIGS / "gaussian.yaml", override.format(address))
        assert message.startswith(override.partition("=")[0])
        assert "word" not in message


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="it is installed")
def test_a_package_that_an_address_needs_is_named():
    message = refusal(CONFIGS / "gaussian.yaml", "data.root=gs://bucket/data")
    assert message.endswith("data.root=gs://bucket/data: gs:// needs gcsfs: pip install gcsfs")


def test_credentials_in_the_address_of_the_storage_are_not_repeated():
    assert SECRET not in refusal(CONFIGS / "gaussian.yaml", f"storage=s3://me:{SECRET}@bucket/runs")


def test_a_run_file_may_be_in_s3(s3):
    config = load_config(CONFIGS / "gaussian.yaml", [f"storage={s3.address}/runs", "seed=3"])
    file = place(config.storage) / config.name / "config.yaml"
    write_bytes(file, resolved_yaml(config).encode())
    for path in (file, str(file)):
        assert load_config(path) == config
        assert load_config(path, ["seed=4"]).seed == 4
    write_bytes(file, b"train: {epoch: 3}")
    assert f"{file}: " in refusal(str(file))
    assert "train.epoch" in refusal(str(file))
    write_bytes(file, b"\xff\xfe\x00\x81")
    assert f"{file}: " in refusal(str(file))
    assert f"{file}x does not exist" in refusal(f"{file}x")


@pytest.mark.parametrize("refused", [SLOW_DOWN, WRONG_KEY])
def test_a_run_file_in_s3_that_refuses_is_not_missing(s3, refused):
    s3.refusal = refused
    try:
        with pytest.raises(OSError, match=r"Service Unavailable|Forbidden"):
            load_config(f"{s3.address}/runs/a/config.yaml")
    finally:
        s3.refusal = None


def test_a_run_file_does_not_read_the_environment(tmp_path, monkeypatch):
    """It may come from storage, and a name is printed."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    path = tmp_path / "run.yaml"
    path.write_text((CONFIGS / "gaussian.yaml").read_text() + "\nstorage: ${oc.env:AWS_SECRET_ACCESS_KEY}\n")
    assert load_config(path).storage == str(Path("${oc.env:AWS_SECRET_ACCESS_KEY}").absolute())
