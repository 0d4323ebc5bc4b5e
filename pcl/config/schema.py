"""The configuration's sections and types; values and their meaning are in ``pcl/config/default.yaml``."""

__all__ = ["Config", "HeadConfig"]

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING


@dataclass
class GaussianProcessConfig:
    """``data.gaussian_process``."""

    num_train: int = MISSING
    num_test: int = MISSING
    num_points: int = MISSING
    num_coefficients: int = MISSING
    noise_std: float = MISSING
    inverse_length: float = MISSING
    smoothness: float = MISSING
    num_modes: int = MISSING


@dataclass
class StreamfunctionConfig:
    """``data.streamfunction``."""

    num_train: int = MISSING
    num_test: int = MISSING
    num_modes: int = MISSING
    decay: float = MISSING
    mean_path: float = MISSING
    frequency_std: float = MISSING
    law_seed: int = MISSING
    start: list[float] = MISSING
    duration: float = MISSING
    num_positions: int = MISSING
    tolerance: float = MISSING


@dataclass
class OceanConfig:
    """``data.ocean``."""

    paths: list[str] = MISSING
    eastward: str = MISSING
    northward: str = MISSING
    group: str = MISSING
    units: str = MISSING
    mask: str = MISSING
    depth_m: float | None = MISSING
    tile_points: int = MISSING
    tile_stride: int = MISSING
    minimum_wet: float = MISSING
    window_steps: int = MISSING
    window_stride: int = MISSING
    test_fraction: float = MISSING
    gap_days: float = MISSING
    max_gap_hours: float | None = MISSING


@dataclass
class DriftersConfig:
    """``data.drifters``."""

    num_drifters: int = MISSING
    num_releases: int = MISSING
    record_s: float = MISSING
    step_s: float = MISSING
    land: str = MISSING
    halo_degrees: float = MISSING
    noise_m: float = MISSING


@dataclass
class DataConfig:
    """``data``."""

    source: str = MISSING
    seed: int = MISSING
    root: str = MISSING
    shards: str = MISSING
    num_shards: int = MISSING
    record_pairs: int = MISSING
    gaussian_process: GaussianProcessConfig = field(default_factory=GaussianProcessConfig)
    streamfunction: StreamfunctionConfig = field(default_factory=StreamfunctionConfig)
    ocean: OceanConfig = field(default_factory=OceanConfig)
    drifters: DriftersConfig = field(default_factory=DriftersConfig)


@dataclass
class TemperatureConfig:
    """``model.temperature``."""

    initial: float = MISSING
    learned: bool = MISSING
    minimum: float = MISSING
    maximum: float = MISSING


@dataclass
class TransformerConfig:
    """``model.transformer``."""

    lift: str = MISSING
    positions_per_token: int = MISSING
    width: int = MISSING
    depth: int = MISSING
    num_heads: int = MISSING
    dropout: float = MISSING


@dataclass
class LinearInverseConfig:
    """``model.linear_inverse``."""

    position_stride: int = MISSING
    noise: float = MISSING
    whiten: bool = MISSING
    learned_map: str = MISSING


@dataclass
class FieldConfig:
    """``model.field_network``."""

    width: int = MISSING
    depth: int = MISSING


@dataclass
class ModelConfig:
    """``model``."""

    embedding_dim: int = MISSING
    encoder_u: str = MISSING
    encoder_v: str = MISSING
    standardise: bool = MISSING
    tilting: str = MISSING
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    linear_inverse: LinearInverseConfig = field(default_factory=LinearInverseConfig)
    field_network: FieldConfig = field(default_factory=FieldConfig)


@dataclass
class KernelConfig:
    """``loss.kernel``."""

    kind: str = MISSING
    bandwidth_u: float = MISSING
    bandwidth_v: float = MISSING
    degree: int = MISSING
    offset: float = MISSING
    statistic: str = MISSING


@dataclass
class LossConfig:
    """``loss``."""

    kind: str = MISSING
    weight_u_given_v: float = MISSING
    weight_v_given_u: float = MISSING
    exclude_positive: bool = MISSING
    exact_normaliser: bool = MISSING
    mode: str = MISSING
    kernel: KernelConfig = field(default_factory=KernelConfig)


@dataclass
class TrainConfig:
    """``train``."""

    epochs: int = MISSING
    global_batch: int = MISSING
    num_lanes: int = MISSING
    shuffle_pairs: int = MISSING
    learning_rate: float = MISSING
    weight_decay: float = MISSING
    warmup_steps: int = MISSING
    schedule: str = MISSING
    final_factor: float = MISSING
    gradient_clip: float = MISSING
    precision: str = MISSING
    log_every: int = MISSING
    checkpoint_every: int = MISSING


@dataclass
class WorkersConfig:
    """``workers``."""

    num_workers: Annotated[Any, int | list[int]] = MISSING  # OmegaConf knows no such type
    cpus_per_worker: int = MISSING
    use_gpu: bool | None = MISSING
    num_checkpoints: int = MISSING
    max_failures: int = MISSING
    resources_timeout_s: int = MISSING
    start_timeout_s: int = MISSING
    collective_timeout_s: int = MISSING
    stop_timeout_s: int = MISSING
    storage_timeout_s: int = MISSING
    profile_steps: list[int] = MISSING


@dataclass
class FieldsConfig:
    """``evaluation.fields``."""

    references: str = MISSING
    num_members: int = MISSING
    num_examples: int = MISSING
    seed: int = MISSING


@dataclass
class EvaluationConfig:
    """``evaluation``."""

    checkpoint: str = MISSING
    split: str = MISSING
    recall_at: list[int] = MISSING
    block_pairs: int = MISSING
    max_pairs: int = MISSING
    num_examples: int = MISSING
    num_embeddings: int = MISSING
    fields: FieldsConfig = field(default_factory=FieldsConfig)


@dataclass
class BuildConfig:
    """``build``."""

    dry_run: bool = MISSING
    num_tasks: int = MISSING
    memory_mb: float = MISSING


@dataclass
class TheoryConfig:
    """``theory``."""

    quick: bool = MISSING
    num_tasks: int = MISSING


@dataclass
class Config:
    """The whole configuration."""

    name: str = MISSING
    storage: str = MISSING
    seed: int = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    build: BuildConfig = field(default_factory=BuildConfig)
    theory: TheoryConfig = field(default_factory=TheoryConfig)


@dataclass
class HeadTheoryConfig:
    """``theory`` of the head."""

    files: list[str] = MISSING
    quick: bool = MISSING
    num_tasks: int = MISSING


@dataclass
class HeadEvaluationConfig:
    """``evaluation`` of the head."""

    at_once: int = MISSING


@dataclass
class HeadConfig:
    """The configuration of the head; values and their meaning are in ``pcl/config/head.yaml``."""

    name: str = MISSING
    storage: str = MISSING
    poll_s: float = MISSING
    attempts: int = MISSING
    backoff_s: float = MISSING
    timeout_s: float = MISSING
    status: bool = MISSING
    theory: HeadTheoryConfig = field(default_factory=HeadTheoryConfig)
    evaluation: HeadEvaluationConfig = field(default_factory=HeadEvaluationConfig)
