"""`python -m llmasos_server.cli`, where the script is not on the path."""

from llmasos_server.cli import main

main()
