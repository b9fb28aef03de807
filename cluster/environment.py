"""The one environment of every process that evaluates rules (DESIGN 11.6). Imports next to nothing: it comes before all else."""

import os
import sys

EVALUATION_ENVIRONMENT = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"}
"""The same order of sets, zone and locale everywhere."""


def in_evaluation_environment() -> None:
    """Start this process again with the fixed environment, unless it has it: hash seeds are drawn before any code runs."""
    if any(os.environ.get(name) != value for name, value in EVALUATION_ENVIRONMENT.items()):
        os.environ.update(EVALUATION_ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
