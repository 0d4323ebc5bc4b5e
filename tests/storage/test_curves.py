"""Curves of event files, against TensorBoard's own reader."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcl.storage.curves import read_curves
from pcl.storage.events import EventFile, restart, scalars

values = st.floats(-1e6, 1e6, width=32)


def write(folder, sessions):
    """Write sessions of points, each an event file that begins with a restart, as a training does."""
    for points in sessions:
        first = [restart(points[0][0])] if points else []
        events = [*first, *(scalars({f"train/{tag}": value}, step) for step, tag, value in points)]
        EventFile(folder, lambda events=events: events)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(1, 40), st.sampled_from("ab"), values), max_size=8), max_size=4))
def test_curves_are_those_that_tensorboard_shows(tmp_path_factory, sessions):
    folder = tmp_path_factory.mktemp("events")
    write(folder, [sorted(points, key=lambda point: point[0]) for points in sessions])
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    expected = {tag: {point.step: point.value for point in shown.Scalars(tag)} for tag in shown.Tags()["scalars"]}
    found = {tag: dict(zip(one.steps, one.values, strict=True)) for tag, one in read_curves(folder).items()}
    assert {tag: one for tag, one in found.items() if one} == {tag: one for tag, one in expected.items() if one}
    assert all(one.steps == sorted(set(one.steps)) for one in read_curves(folder).values())


def test_a_file_that_is_cut_off_counts_to_where_it_is_whole(tmp_path):
    write(tmp_path, [[(step, "loss", float(step)) for step in range(1, 21)]])
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        curves = read_curves(tmp_path)
        steps = curves["train/loss"].steps if curves else []
        assert steps == [*range(1, len(steps) + 1)]
    path.write_bytes(content[:200] + b"\xff" * 40 + content[240:])
    assert all(math.isfinite(value) for curve in read_curves(tmp_path).values() for value in curve.values)
    assert read_curves(tmp_path / "nothing") == {}
