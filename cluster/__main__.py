"""`python -m cluster` and `countersign`: the environment first, so that what is imported for the command is imported once."""

from cluster.environment import in_evaluation_environment


def main() -> None:
    """The console script."""
    in_evaluation_environment()
    from cluster.cli import app

    app()


if __name__ == "__main__":
    main()
