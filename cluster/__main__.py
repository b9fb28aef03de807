"""`python -m cluster` and `countersign`: the environment first, so that what is imported for the command is imported once."""

import errno
import os
import sys

from cluster.environment import in_evaluation_environment

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE}


def main() -> None:
    """The console script."""
    try:
        in_evaluation_environment()
        from cluster.cli import app

        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno not in _OF_WRITING or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to print would fail once more at the end
        print(f"countersign: standard output: {error.strerror}: keep its reader running, or make room", file=sys.stderr)
        sys.exit(4)


if __name__ == "__main__":
    main()
