"""`python -m podwright`: the command line where its program is not installed."""

from podwright.cli.main import main

main()
