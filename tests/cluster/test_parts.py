"""Where the parts of an evaluation are computed when the cluster that is named does not let it in."""

from contextlib import contextmanager

import pytest

from pcl.cluster import parts
from pcl.errors import RunFailedError


@pytest.fixture
def refused(monkeypatch):
    @contextmanager
    def refusing():
        raise RunFailedError("Ray at 127.0.0.1:9 refuses the token of this process")
        yield

    monkeypatch.setattr(parts, "IS_LOCAL", False)
    monkeypatch.setattr(parts, "task_runner", refusing)


def test_an_evaluation_that_was_not_asked_for_tasks_goes_on_in_its_own_process(refused, capsys):
    with parts.elsewhere(0, use_gpu=False, timeout_s=1.0) as (elsewhere, device):
        assert (elsewhere, device) == (None, "cpu")
    assert capsys.readouterr().out == (
        "evaluating in this process: Ray at 127.0.0.1:9 refuses the token of this process\n"
    )


def test_one_that_was_asked_for_tasks_ends_in_that_line(refused):
    with pytest.raises(RunFailedError, match="refuses the token"), parts.elsewhere(2, use_gpu=False, timeout_s=1.0):
        pass
