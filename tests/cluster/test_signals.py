"""Signals in real processes: what asks, what insists, what is left alone, and the line and code of the end."""

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from pcl.cluster.signals import SIGNALS, Interrupted, Stopping, interruptible
from tests.typed import ROOT

JOB = """
import os, signal, sys, threading, time
from pcl.commands.ending import finish
from pcl.cluster.signals import Interrupted, Stopping

asked = threading.Event()

def main():
    with Stopping(asked.set, patience_s=float(sys.argv[1])) as told:
        print("ready", flush=True)
        while not (asked.is_set() and sys.argv[2] == "obeys"):
            time.sleep(0.01)
    raise Interrupted(told.number, "stopped in good order")

finish(main)
"""


def start(*arguments, ignored=(), **options):
    def ignore():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    command = [sys.executable, "-c", JOB, *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=ignore, **streams)
    if process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def end(process):
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_even_if_it_comes_twice_at_once(number):
    process = start(60, "obeys")
    process.send_signal(number)
    process.send_signal(number)
    assert end(process) == (128 + number, f"error: {number.name}: stopped in good order\n")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_later_signal_insists(second):
    process = start(60, "does not")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.3)
    process.send_signal(second)
    assert end(process) == (143, "error: SIGTERM: the same command goes on from what is finished\n")


def test_patience_ends():
    process = start(0.5, "does not")
    process.send_signal(signal.SIGHUP)
    assert end(process) == (129, "error: SIGHUP: the same command goes on from what is finished\n")


def test_what_nohup_ignores_stays_ignored():
    process = start(60, "obeys", ignored=[signal.SIGHUP])
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert end(process)[0] == 143


def test_a_terminal_that_is_gone_changes_nothing():
    ours, theirs = pty.openpty()
    process = start(60, "obeys", stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    with os.fdopen(ours) as terminal:
        assert terminal.readline() == "ready\n"
    # whoever writes to it now gets an error
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 129


@pytest.mark.parametrize("context", [interruptible, lambda: Stopping(lambda: None, 60)])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_keeps_its_name_where_compiled_code_raises_another_error(number, context):
    """Ray's code waits, looks for signals, and raises a bare KeyboardInterrupt for what a handler raised."""

    def wait_as_ray_does():
        with suppress(Interrupted):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught, context():
        wait_as_ray_does()
    assert caught.value.number == number


def test_a_keyboard_interrupt_of_nobody_stays_what_it_is():
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        raise KeyboardInterrupt
    assert not isinstance(caught.value, Interrupted)
