"""`python -m llmasos_server.cli`, if the script is not on the path."""

from llmasos_server.cli import main

main()
