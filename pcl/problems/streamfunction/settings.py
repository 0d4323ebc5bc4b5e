"""Settings of the Lagrangian pairs, and of the encoders of paths."""

__all__ = ["LearnedInverseSettings", "LinearInverseSettings", "StreamfunctionSettings", "TransformerSettings"]

from dataclasses import dataclass

from pcl.settings import setting


@dataclass
class StreamfunctionSettings:
    """``data.streamfunction``."""

    num_train: int = setting("training pairs", 32268, at_most=10**10)
    num_test: int = setting("test pairs", 32268, at_most=10**10)
    num_modes: int = setting(
        "Fourier modes nearest the origin in a half plane of wavenumbers, two coefficients each", 49, at_most=2000
    )
    decay: float = setting("standard deviation of a coefficient falls as |k|^-decay", 2.0)
    mean_path: float = setting("mean length of a path, in widths of the domain: scales the coefficients", 3.0)
    frequency_std: float = setting(
        "standard deviation of the fixed angular frequencies, rad per unit of time", 6.283185307179586
    )
    law_seed: int = setting("of the frequencies", 0, at_most=2**63 - 1)
    start: list[float] = setting("where every path starts, in widths of the domain", [0.75, 0.75])
    duration: float = setting("T, unit of time", 0.1)
    num_positions: int = setting("recorded positions of a path, equally spaced in time", 1000, at_most=10**5)
    tolerance: float = setting(
        "largest difference to half the step that the check of the step allows, domain widths", 5.0e-6, at_least=1e-10
    )


@dataclass
class TransformerSettings:
    """``model.transformer``, of paths."""

    lift: str = setting(
        "what a token is made of: velocity and Fourier features of position, or positions",
        "velocity_fourier",
        choices=("velocity_fourier", "positions"),
    )
    positions_per_token: int = setting("consecutive positions in a token; 1 is the paper's", 25, at_most=10**6)
    width: int = setting("of a token", 128, at_most=10**5)
    depth: int = setting("attention blocks; the paper has 12", 4, at_most=1000)
    num_heads: int = setting("of an attention block", 4, at_most=10**4)
    dropout: float = setting("share of what a block adds that is dropped in training", 0.0)
    num_places: int = setting(
        "velocity_fourier: wavenumbers of where a path was; 110 reach |k| = 8, 188 reach 11",
        110,
        at_least=49,
        at_most=2000,
        is_neutral=True,
    )
    phases: bool = setting("velocity_fourier: waves turn with time by learned frequencies", False, is_neutral=True)


@dataclass
class LinearInverseSettings:
    """``model.linear_inverse``, of paths: ridge regression along the path."""

    position_stride: int = setting("every how manyth position is used", 4, at_most=10**6)
    noise: float = setting("standard deviation of the velocities, in widths of the domain per unit of time", 0.003)
    whiten: bool = setting(
        "coefficients in units of the prior's standard deviations, as model.standardise gives u", True
    )
    learned_map: str = setting("what follows the regression", "none", choices=("none", "linear", "mlp"))


@dataclass
class LearnedInverseSettings:
    """Settings of ``learned_inverse``, of paths: ridge regression along the path under a law that is learned."""

    position_stride: int = setting("every how manyth position is used", 10, at_least=1, at_most=10**6)
    noise: float = setting(
        "first standard deviation of the velocities, widths of the domain per unit of time: large, for it stands for "
        "the error of the law",
        2.0,
        above=0,
    )
    frequency_rate: float = setting(
        "rad per unit of time that a frequency moves where Adam moves a number by 1", 100.0, above=0
    )
    scale_rate: float = setting("likewise, of the logarithms of deviations and noise", 3.0, above=0)
    map_rate: float = setting("likewise, of the linear map", 0.01, above=0)
