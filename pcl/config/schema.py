"""Sections and types of the configuration, with bounds and choices; values and their meaning are in ``default.yaml``.

Three sections are open: ``data`` holds a section for every kind of pairs and one of augmentations, ``evaluation`` one
for what a kind adds to an evaluation, ``model`` those that several kinds of encoders share. Settings of one encoder,
or of a loss of one's own, lie in a mapping whose keys are those of the kind that is chosen.
"""

__all__ = ["AUGMENT", "OPEN_CHOICES", "Config", "HeadConfig", "is_section", "kinds_of", "sections_of", "tree"]

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeGuard, get_type_hints

from pcl.data.augmentation import AugmentSettings
from pcl.encoders.registry import ENCODERS
from pcl.objective import KERNELS, LOSSES
from pcl.problems.problem import PROBLEMS
from pcl.scores import MODES
from pcl.settings import Open, own_fields, setting
from pcl.storage.copies import Copies, default_folder
from pcl.storage.place import Place, place
from pcl.tilting import TILTINGS

MOST_STEPS = 10**9
MOST_SEED = 2**63 - 1
AUGMENT = "augment"  # the section of data on which no shards depend
LARGEST = 1e300  # of a number without a bound of its own: finite


@dataclass
class DataConfig(Open):
    """``data``."""

    source: str = setting()
    seed: int = setting(at_least=0, at_most=MOST_SEED)
    root: str = setting(is_input=True, is_identity=False)
    shards: str = setting(is_place=True, is_input=True, is_identity=False)
    cache: str | None = setting(is_place=True, is_identity=False)
    cache_gb: float = setting(above=0, at_most=10**6, is_identity=False)
    num_shards: int = setting(at_least=1, at_most=999999)
    record_pairs: int = setting(at_least=1, at_most=10**7)


@dataclass
class TemperatureConfig:
    """``model.temperature``."""

    initial: float = setting()
    learned: bool = setting()
    minimum: float = setting()
    maximum: float = setting()


@dataclass
class ModelConfig(Open):
    """``model``."""

    embedding_dim: int = setting(at_least=1, at_most=10**5)
    encoder_u: str = setting()
    encoder_v: str = setting()
    settings_u: dict[str, Any] = setting()
    settings_v: dict[str, Any] = setting()
    share: bool = setting()
    standardise: bool = setting()
    tilting: str = setting(choices=tuple(TILTINGS))
    temperature: TemperatureConfig = setting()


@dataclass
class KernelConfig:
    """``loss.kernel``."""

    kind: str = setting(choices=KERNELS)
    bandwidth_u: float = setting(at_least=0)
    bandwidth_v: float = setting(at_least=0)
    degree: int = setting(at_least=1, at_most=100)
    offset: float = setting(at_least=0)
    statistic: str = setting(choices=("v", "u"))


@dataclass
class LossConfig:
    """``loss``."""

    kind: str = setting()
    weight_u_given_v: float = setting(at_least=0)
    weight_v_given_u: float = setting(at_least=0)
    exclude_positive: bool = setting()
    normaliser: str = setting(choices=("batch", "atoms", "gaussian"))
    mode: str = setting(choices=MODES)
    settings: dict[str, Any] = setting()
    kernel: KernelConfig = setting()


@dataclass
class TrainConfig:
    """``train``."""

    epochs: int = setting(at_least=1, at_most=10**7)
    global_batch: int = setting(at_least=2, at_most=10**7)
    num_lanes: int = setting(at_least=1, at_most=2**16)
    shuffle_pairs: int = setting(at_least=1, at_most=MOST_STEPS)
    learning_rate: float = setting(above=0, at_most=LARGEST)
    weight_decay: float = setting(at_least=0, at_most=LARGEST)
    warmup_steps: int = setting(at_least=0, at_most=MOST_STEPS)
    schedule: str = setting(choices=("cosine", "constant"))
    final_factor: float = setting(at_least=0, at_most=1)
    gradient_clip: float = setting(at_least=0)
    precision: str = setting(choices=("float32", "bf16", "float64"))
    chunk_pairs: int = setting(at_least=0, at_most=10**7, is_identity=False)
    recompute: bool = setting(is_identity=False)
    compile: bool = setting(is_identity=False)
    validation_fraction: float = setting(at_least=0, at_most=0.9)
    validate_every: int = setting(at_least=0, at_most=MOST_STEPS, is_identity=False)
    log_every: int = setting(at_least=1, at_most=MOST_STEPS, is_identity=False)
    checkpoint_every: int = setting(at_least=1, at_most=MOST_STEPS, is_identity=False)
    init_from: str | None = setting(is_place=True, is_identity=False)
    init_from_sha256: str = setting()


@dataclass
class WorkersConfig:
    """``workers``."""

    num_workers: int | list[int] = setting()
    cpus_per_worker: int = setting(at_least=1, at_most=10**4)
    use_gpu: bool | None = setting()
    num_checkpoints: int = setting(at_least=1, at_most=10**6)
    max_failures: int = setting(at_least=0, at_most=10**6)
    resources_timeout_s: int = setting(at_least=0, at_most=10**8)
    start_timeout_s: int = setting(at_least=1, at_most=10**8)
    collective_timeout_s: int = setting(at_least=1, at_most=10**8)
    stop_timeout_s: int = setting(at_least=1, at_most=10**8)
    storage_timeout_s: int = setting(at_least=1, at_most=10**8)
    profile_steps: list[int] = setting()


@dataclass
class EvaluationConfig(Open):
    """``evaluation``."""

    checkpoint: str = setting()
    split: str = setting(choices=("train", "test"))
    recall_at: list[int] = setting()
    block_pairs: int = setting(at_least=1, at_most=10**6)
    max_pairs: int = setting(at_least=0, at_most=10**10)
    num_examples: int = setting(at_least=0, at_most=1000)
    num_embeddings: int = setting(at_least=0, at_most=10**6)
    calibration: int = setting(at_least=0, at_most=10**5)
    label: int | None = setting(at_least=0, at_most=10**9)
    baselines: bool = setting()
    num_tasks: int = setting(at_least=0, at_most=10**5)


@dataclass
class BuildConfig:
    """``build``."""

    dry_run: bool = setting()
    num_tasks: int = setting(at_least=0, at_most=10**5)
    memory_mb: float = setting()


@dataclass
class FinetuneConfig:
    """``finetune``."""

    checkpoint: str = setting()
    name: str = setting()
    shards: str | None = setting(is_place=True, is_input=True)
    u: str | None = setting(is_place=True)
    labels: str | None = setting(is_place=True)
    are_v: bool | None = setting()
    without: list[str] = setting()
    per_label: list[int] = setting()
    seeds: list[int] = setting()
    test_fraction: float = setting(above=0, at_most=0.99)
    steps: int = setting(at_least=0, at_most=10**7)


@dataclass
class GivenConfig:
    """``given``."""

    label: int | None = setting(at_least=0, at_most=10**9)
    item: int | None = setting(at_least=0, at_most=10**15)
    split: str = setting(choices=("train", "test"))
    file: str = setting()
    row: int | None = setting(at_least=0, at_most=10**15)
    text: str = setting()


@dataclass
class DrawConfig:
    """``draw``."""

    checkpoint: str = setting()
    direction: str = setting(choices=("auto", "u_given_v", "v_given_u"))
    num: int = setting(at_least=1, at_most=10**6)
    replacement: bool = setting()
    temperature: float = setting(above=0, at_most=10**6)
    best: bool = setting()
    seed: int = setting(at_least=0, at_most=MOST_SEED)
    references: str = setting(choices=("train", "test"))
    device: str = setting()
    to: str | None = setting(is_place=True)


@dataclass
class ExportConfig:
    """``export``."""

    checkpoint: str = setting()
    to: str | None = setting(is_place=True)


@dataclass
class TheoryConfig:
    """``theory``."""

    quick: bool = setting()
    num_tasks: int = setting(at_least=0, at_most=10**5)


@dataclass
class Config:
    """The whole configuration."""

    name: str = setting()
    storage: str = setting(is_place=True)
    seed: int = setting(at_least=0, at_most=MOST_SEED)
    seeds: list[int] = setting()
    variants: dict[str, Any] = setting()
    crossed_with: dict[str, Any] = setting()
    left_out: list[str] = setting()
    plugins: list[str] = setting()
    data: DataConfig = setting()
    model: ModelConfig = setting()
    loss: LossConfig = setting()
    train: TrainConfig = setting()
    workers: WorkersConfig = setting()
    evaluation: EvaluationConfig = setting()
    finetune: FinetuneConfig = setting()
    given: GivenConfig = setting()
    draw: DrawConfig = setting()
    export: ExportConfig = setting()
    build: BuildConfig = setting()
    theory: TheoryConfig = setting()

    @property
    def copies(self) -> Copies:
        """Where a machine keeps copies of objects."""
        folder = Path(self.data.cache) if self.data.cache else default_folder()
        return Copies(folder, int(self.data.cache_gb * 1e9))

    @property
    def shard_root(self) -> Place:
        """Where the shards lie."""
        return self.shards_at(self.data.shards)

    def shards_at(self, address: str) -> Place:
        """Return where shards lie that an address names: it knows where copies of its objects go.

        Raises:
            BadInputError: see ``place``.
        """
        return place(address, only_read=True, copies=self.copies, patience_s=float(self.workers.storage_timeout_s))


@dataclass
class HeadTheoryConfig:
    """``theory`` of the head."""

    files: list[str] = setting()
    quick: bool = setting()
    num_tasks: int = setting(at_least=0, at_most=10**5)


@dataclass
class HeadEvaluationConfig:
    """``evaluation`` of the head."""

    at_once: int = setting(at_least=0, at_most=10**4)


@dataclass
class HeadConfig:
    """The configuration of the head; values and their meaning are in ``pcl/config/head.yaml``."""

    name: str = setting()
    storage: str = setting(is_place=True)
    poll_s: float = setting(at_least=0.1, at_most=10**6)
    attempts: int = setting(at_least=1, at_most=1000)
    backoff_s: float = setting(at_least=0, at_most=10**6)
    timeout_s: float = setting(at_least=1, at_most=10**8)
    status: bool = setting()
    plugins: list[str] = setting()
    theory: HeadTheoryConfig = setting()
    evaluation: HeadEvaluationConfig = setting()


OPEN_CHOICES: dict[str, Mapping[str, Any]] = {
    "data.source": PROBLEMS,
    "model.encoder_u": ENCODERS,
    "model.encoder_v": ENCODERS,
    "loss.kind": LOSSES,
}
"""What keys may name that is registered, by name."""


def sections_of(schema: type) -> dict[str, type]:
    """Return the registered sections of an open section: their dataclasses by name."""
    if schema is DataConfig:
        problems = {name: one.settings for name, one in PROBLEMS.items() if fields(one.settings)}
        return {AUGMENT: AugmentSettings} | problems
    if schema is EvaluationConfig:
        return {name: one.evaluation for name, one in PROBLEMS.items() if one.evaluation is not None}
    if schema is ModelConfig:
        return {kind.section: kind.settings for kind in ENCODERS.values() if kind.section and kind.settings is not None}
    return {}


def is_section(kind: Any) -> TypeGuard[type]:
    """Return whether the type of a key is that of a section."""
    return isinstance(kind, type) and is_dataclass(kind)


def kinds_of(schema: type) -> dict[str, Any]:
    """Return the types of a section's keys, those of registered sections too."""
    hints = get_type_hints(schema)
    return {part.name: hints[part.name] for part in own_fields(schema)} | sections_of(schema)


def tree(section: Any) -> dict[str, Any]:
    """Return a section as nested mappings of plain values, registered sections among its keys."""
    own = {part.name: getattr(section, part.name) for part in own_fields(section)}
    registered = section.sections if isinstance(section, Open) else {}
    return {name: tree(value) if is_dataclass(value) else value for name, value in (own | registered).items()}
