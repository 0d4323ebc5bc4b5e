"""Colours and a legend for as many models as there are in a figure."""

__all__ = ["colours", "legend_above"]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT_SIZE = 8
INCHES_A_LETTER, INCHES_A_MARK = 0.085, 0.6  # at that size, at most
NUM_CYCLE = 10  # colours of matplotlib's own


def colours(number: int) -> list[Any]:
    """Colours that differ: matplotlib's own, or evenly from the rainbow where these are too few.

    Example:
        >>> colours(2)
        ['C0', 'C1']
        >>> len(set(colours(24)))
        24
    """
    if number <= NUM_CYCLE:
        return [f"C{place}" for place in range(number)]
    from matplotlib import colormaps

    return [colormaps["turbo"](place / (number - 1)) for place in range(number)]


def legend_above(figure: "Figure", axis: "Axes") -> None:
    """Write the names in an axis above all of a figure, in as many columns as its width holds.

    The figure grows by what the names take.
    """
    handles, names = axis.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    column = INCHES_A_MARK + INCHES_A_LETTER * max(map(len, names))
    num_columns = max(1, min(len(names), int(width / column)))
    figure.set_size_inches(width, height + 0.18 * (-(-len(names) // num_columns) - 1))
    figure.legend(handles, names, loc="outside upper center", ncols=num_columns, fontsize=FONT_SIZE, frameon=False)
