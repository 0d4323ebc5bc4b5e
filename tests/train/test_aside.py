"""Functions that run aside: in turn, one at a time, and what they raise is not lost."""

import threading
import time

import pytest

from pcl.train.aside import Aside


def test_functions_run_in_turn_one_at_a_time_while_the_caller_goes_on():
    done, gate = [], threading.Event()
    with Aside() as aside:
        aside.do(lambda: (gate.wait(10), done.append("first")))
        done.append("caller")
        gate.set()
        aside.do(lambda: done.append("second"))
        assert done[:2] == ["caller", "first"]  # the second starts only once the first has ended
    assert done == ["caller", "first", "second"]


def fail():
    raise OSError(28, "No space left on device")


def test_what_a_function_raises_comes_at_the_next_look():
    with pytest.raises(OSError, match="No space"), Aside() as aside:  # noqa: PT012
        aside.do(fail)
        for _ in range(500):
            time.sleep(0.01)
            aside.check()
    with pytest.raises(OSError, match="No space"), Aside() as aside:
        aside.do(fail)
    with pytest.raises(OSError, match="No space"), Aside() as aside:  # noqa: PT012
        aside.do(fail)
        aside.do(lambda: None)


def test_an_error_of_the_block_waits_for_what_is_under_way_and_stays_the_error():
    done = []
    with pytest.raises(FloatingPointError), Aside() as aside:  # noqa: PT012
        aside.do(lambda: (time.sleep(0.2), done.append(1)))
        raise FloatingPointError
    assert done == [1]
    with pytest.raises(FloatingPointError), Aside() as aside:  # noqa: PT012
        aside.do(fail)
        raise FloatingPointError
