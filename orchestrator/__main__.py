"""`python -m orchestrator` is the command `saga`."""

from orchestrator.faces.cli import main

main()
