"""The law of the flows that an encoder of paths has learned, beside the true one.

Shapes: M modes.
"""

__all__ = ["add_law", "law_figure"]

import numpy as np
from matplotlib.figure import Figure

from pcl.evaluation.result import Evaluation
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.learned_inverse import LearnedInverse

CAPTION = (
    "The law that was learned beside the true one: frequencies, how far they are off over the wavenumber, and standard "
    "deviations of real and imaginary parts, whose scale as a whole is that of the training flows."
)


def add_law(result: Evaluation, encoder: LearnedInverse, law: StreamfunctionLaw) -> None:
    """Add to an evaluation: how far learned frequencies are off, a table of all modes for the page, and a picture.

    Args:
        result: that gets them.
        encoder: that has learned.
        law: the true one.
    """
    found, true = encoder.frequencies.detach().numpy(), law.frequencies
    result.metrics |= {
        "frequency_rms_error": float(np.sqrt(np.square(found - true).mean())),
        "frequency_rms": float(np.sqrt(np.square(true).mean())),
        "velocity_noise": float(encoder.noise.detach()),
    }
    if min(found.std(), true.std()) > 0:
        result.metrics["frequency_correlation"] = float(np.corrcoef(found, true)[0, 1])
    result.details.append(law_table(encoder, law))
    result.figures["learned_law.png"] = law_figure(encoder, law)
    result.captions["learned_law.png"] = CAPTION


def law_table(encoder: LearnedInverse, law: StreamfunctionLaw) -> list[list[str]]:
    """Return a row for every mode: its wavenumber, frequency and deviations, learned and true."""
    head = ["learned law: k", "frequency", "true", "deviation, real", "imaginary", "true"]
    columns = (
        encoder.frequencies.tolist(),
        law.frequencies.tolist(),
        *encoder.deviations.detach().reshape(2, -1).tolist(),
        law.standard_deviations[: law.num_modes].tolist(),
    )
    rows = zip(law.wavenumbers.tolist(), *columns, strict=True)
    return [head, *([f"{first}, {second}", *(f"{x:.4g}" for x in numbers)] for (first, second), *numbers in rows)]


def law_figure(encoder: LearnedInverse, law: StreamfunctionLaw) -> Figure:
    """Draw learned frequencies on true ones, their errors and the learned deviations over the wavenumber.

    Args:
        encoder: that has learned.
        law: the true one.
    """
    length = np.linalg.norm(law.wavenumbers, axis=1)
    found, true = encoder.frequencies.detach().numpy(), law.frequencies
    real, imaginary = encoder.deviations.detach().reshape(2, -1)
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    points = first.scatter(true, found, c=length, s=24, cmap="viridis")
    limits = np.array([min(true.min(), found.min()), max(true.max(), found.max())])
    first.plot(limits, limits, "k-", lw=0.8, label="the truth")
    first.set(xlabel="true frequency (rad per unit of time)", ylabel="learned", title="frequencies")
    first.legend(fontsize=8)
    figure.colorbar(points, ax=first, label="|k|")
    second.plot(length, found - true, "C0.")
    second.axhline(0, color="k", lw=0.8)
    second.set(xlabel="|k|", ylabel="learned - true (rad per unit of time)", title="error of the frequencies")
    order = np.argsort(length, kind="stable")
    third.loglog(length[order], law.standard_deviations[: law.num_modes][order], "k-", lw=0.8, label="the truth")
    third.loglog(length, real, "C0.", label="learned, real parts")
    third.loglog(length, imaginary, "C1x", label="learned, imaginary parts")
    ticks = 2 ** np.arange(np.log2(length.max()) + 1).astype(int)
    third.set_xticks(ticks, [str(tick) for tick in ticks])
    third.set_xticks([], minor=True)
    third.set(xlabel="|k|", ylabel="squared widths of the domain per unit of time", title="standard deviations")
    third.legend(fontsize=8)
    figure.suptitle(f"learned noise of velocities: {encoder.noise.item():.3g} widths per unit of time", fontsize=9)
    return figure
