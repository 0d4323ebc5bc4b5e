"""How far a training in this process is: a bar on a terminal, a few lines elsewhere."""

__all__ = ["losses_shown"]

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

MOST_LINES = 10


@contextmanager
def losses_shown(epochs: int, *, show: bool) -> Iterator[Callable[[int, float, float], None]]:
    """Yield what shows the losses of an epoch: called with its number from 1 on, the loss, and that of validation.

    Args:
        epochs: in all.
        show: whether anything is shown.
    """
    if show and not sys.stderr.isatty():
        last, every = 0, -(-epochs // MOST_LINES)

        def line(epoch: int, loss: float, validation: float) -> None:
            nonlocal last
            if epoch > last and (epoch == epochs or epoch % every == 0):
                last = epoch
                tqdm.write(f"epoch {epoch}/{epochs}: {_losses(loss, validation)}", file=sys.stderr)

        yield line
        return
    with tqdm(total=epochs, unit="epoch", disable=not show, file=sys.stderr) as bar:

        def advance(epoch: int, loss: float, validation: float) -> None:
            bar.set_postfix_str(_losses(loss, validation), refresh=False)
            bar.update(epoch - bar.n)

        yield advance


def _losses(loss: float, validation: float) -> str:
    return f"loss {loss:.4f}, of validation {validation:.4f}"
