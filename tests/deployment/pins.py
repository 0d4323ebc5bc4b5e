"""What every file of docker/ and cluster/ has to agree with."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
FILES = sorted(path for folder in ("docker", "cluster") for path in (ROOT / folder).rglob("*") if path.is_file())
