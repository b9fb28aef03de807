"""python -m cluster: the same as the command `countersign`."""

from cluster.cli import main

main()
