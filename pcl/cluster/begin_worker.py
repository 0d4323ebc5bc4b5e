"""The program by which a Ray of our own begins a worker: it asks for a copy of the template.

For every worker Ray begins an interpreter that imports Ray to give the worker its environment, and then another. This
one is run by its path, imports nothing but the standard library and is through in some hundredths of a second. Where
nobody gives copies the worker is begun from nothing.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

NAME = "template"  # of the socket, beside the folder of Ray
RAYS_OWN = "setup_worker.py"  # beside the program of a worker
LENGTH = 8  # bytes of a number
LANGUAGE, CONTEXT = "--language", "--serialized-runtime-env-context"


def main(words: list[str]) -> None:
    """Begin a worker as the command line says that Ray gives.

    Args:
        words: the program of a worker and its options, and those of what begins it.
    """
    options = dict(word.partition("=")[::2] for word in words)
    context = json.loads(options.get(CONTEXT) or "{}")
    if not words[0].endswith(".py") or options.get(LANGUAGE, "PYTHON") != "PYTHON" or not is_ordinary(context):
        program = next(word for word in words if word.endswith(".py"))
        os.execv(sys.executable, [sys.executable, str(Path(program).with_name(RAYS_OWN)), *words])
    os.environ.update(context.get("env_vars", {}))
    words = [word for word in words if word.partition("=")[0] not in (LANGUAGE, CONTEXT)]
    if not is_copied(words, Path(options["--temp-dir"]).with_name(NAME)):
        os.execv(sys.executable, [sys.executable, *words])


def is_ordinary(context: dict[str, Any]) -> bool:
    """Return whether the environment that a worker wants is this one, but for variables."""
    variables = context.get("env_vars", {})
    others = {name: value for name, value in context.items() if name not in ("env_vars", "py_executable") and value}
    return not others and context.get("py_executable", sys.executable) == sys.executable and "$" not in str(variables)


def is_copied(words: list[str], template: Path) -> bool:
    """Ask for a copy with environment, folder, streams and niceness of this process; return whether there is one."""
    job = {"words": words, "environment": dict(os.environ), "folder": str(Path.cwd()), "niceness": os.nice(0)}
    content = json.dumps(job).encode()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(template))
            socket.send_fds(connection, [len(content).to_bytes(LENGTH, "big")], [0, 1, 2])
            connection.sendall(content)
            return bool(connection.recv(LENGTH))
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
