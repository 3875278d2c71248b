"""`python -m opbench`: the same as the console script."""

from opbench.cli import main

if __name__ == "__main__":
    main()
