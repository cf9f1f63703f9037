"""`python -m mesaprobe` is the command line."""

from mesaprobe.cli import main

main()
