"""What a test may take: memory and time of a block."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_S = 5.0


@contextmanager
def modest(most_bytes: int = 200_000_000, most_s: float = MOST_S) -> Iterator[None]:
    """Check that a block takes at most so much memory, as the machine counts it, and a short time."""
    Path("/proc/self/clear_refs").write_text("5")  # what was taken most begins anew
    before, began = _most_bytes(), time.process_time()
    yield
    taken, seconds = _most_bytes() - before, time.process_time() - began
    assert taken < most_bytes, f"it took {taken:,} bytes"
    assert seconds < most_s, f"it took {seconds:.1f} s"


def _most_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
