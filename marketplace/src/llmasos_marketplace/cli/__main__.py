"""`python -m llmasos_marketplace.cli`, where the script is not on the path."""

from llmasos_marketplace.cli import main

main()
