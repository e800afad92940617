"""What every test may use."""

import os
import sys

pytest_plugins = ["databases", "fast_folder", "network"]

# Tests start the command hundreds of times; each would compile all that it imports. Workers and children inherit this.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
