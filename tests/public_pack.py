"""The public rule pack, where this machine has it: COUNTERSIGN_PACK names a checkout. It is never part of this repository."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

VARIABLE = "COUNTERSIGN_PACK"
REPOSITORY = "panther-labs/panther-analysis"


def public_pack(shared_data: Path) -> Path:
    """The checkout; skips, saying why, where there is none, or one of another commit than the expectations are of."""
    named = os.environ.get(VARIABLE)
    wanted = wanted_commit((shared_data / "MANIFEST.md").read_text())
    if not named:
        pytest.skip(f"{VARIABLE} names no checkout of {REPOSITORY} at {wanted}")
    directory = Path(named)
    assert directory.is_dir(), f"{VARIABLE}={named}: no such directory"
    commit = _commit_of(directory)
    if commit is not None and not commit.startswith(wanted):
        pytest.skip(f"{VARIABLE}: the checkout is of {commit[:7]}, what is expected is known of {wanted}")
    return directory


def wanted_commit(manifest: str) -> str:
    """The commit whose results the manifest describes."""
    found = re.search(rf"{REPOSITORY} at commit ([0-9a-f]{{7,40}})", manifest)
    assert found is not None, "MANIFEST.md names no commit of the public pack"
    return found[1]


def _commit_of(directory: Path) -> str | None:
    """None where there is no git to ask: an unpacked archive, say."""
    if not (directory / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", directory, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
