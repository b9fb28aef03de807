"""Environments of their own for what the benchmarks compare with: virtual ones below a cache folder, made when first needed.

None of it is a dependency of the project. What cannot be installed here is CannotInstall, with pip's last words.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class CannotInstall(RuntimeError):
    """An environment is not here and cannot be made."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Distributions that belong together."""

    name: str
    """Of the folder: it holds the version."""
    packages: tuple[str, ...]
    pythons: tuple[str, ...] = ()
    """Interpreters to take, the best first, where ours may be too new; none: ours."""

    def home(self, cache: Path) -> Path:
        return cache / self.name

    def present(self, cache: Path) -> bool:
        """Whether it is there, whole and as it should be."""
        complete = self._complete(cache)
        return complete.exists() and complete.read_text() == "\n".join(self.packages)

    def program(self, cache: Path, name: str = "python") -> Path:
        """A program of the environment, which is made if need be. Raises CannotInstall."""
        home = self.home(cache)
        if not self.present(cache):
            print(f"Installing {' '.join(self.packages)} into {home} ...", flush=True)
            home.parent.mkdir(parents=True, exist_ok=True)
            _install(self.name, [self._python(), "-m", "venv", "--clear", str(home)])
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
            _install(self.name, [*pip, "--quiet", "--retries", "1", "--timeout", "20", *self.packages])
            # Written last: an interrupted installation is made again.
            self._complete(cache).write_text("\n".join(self.packages))
        return home / "bin" / name

    def _complete(self, cache: Path) -> Path:
        return self.home(cache) / "complete"

    def _python(self) -> str:
        if not self.pythons:
            return sys.executable
        for python in self.pythons:
            found = shutil.which(python)
            if (
                found is not None
                and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0
            ):
                return found
        raise CannotInstall(f"{self.name}: needs one of {', '.join(self.pythons)}: install one")


def _install(name: str, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise CannotInstall(f"{name} cannot be installed: {said[-1]}")
