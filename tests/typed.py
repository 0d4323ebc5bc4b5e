"""Jobs as people type them: in processes of their own, outside any cluster."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(job, *arguments, config="configs/gaussian.yaml"):
    """Start a job in a process of its own, outside any cluster."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, f"jobs/{job}.py", config, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process):
    """Return exit code, output and errors; a job that hangs is ended."""
    try:
        output, errors = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output, errors
