"""Packages of the Python package index, downloaded by this Python's pip; not installed, and nothing in them is run.

pip itself runs the setup.py of a source archive to learn its name.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def download(package: str, sha256: str, folder: Path, *options: str) -> str | None:
    """Lay the archive of that hash into the folder, without what it depends on; else why pip could not, in a line.

    package: NAME==VERSION; options: of `pip download`.
    """
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps", *options]
    with tempfile.TemporaryDirectory(prefix="fifo-wanted-") as beside:
        wanted = Path(beside, "wanted.txt")
        wanted.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
        done = subprocess.run(
            [*pip, "--require-hashes", "-r", str(wanted), "-d", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    if not done.returncode:
        return None
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.strip().splitlines()
    return said[0] if said else f"exit code {done.returncode}"
