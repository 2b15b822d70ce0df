"""`python -m hepipe` is the command `hepipe`."""

from hepipe.cli.app import main

main()
