"""`python -m inn_automl`: the `inn-automl` command of this very interpreter."""

from inn_automl.cli.main import main

main()
