"""What an author's commands do: from a folder with `llmapp.toml` to a bundle.

    project.py     the folder, read; which of its files are its source
    scaffold.py    a new app        check.py  every fault of one        dev.py  build again on change
    build.py       the bundle, from the parts below, each binary once for the same source
    wit.py         the world that a component may import
    python.py      Python source to a component     javascript.py  JavaScript and TypeScript to one
    wrap.py        a core module, or a finished component           native.py  a native app's wheel and lock

Importing this package imports none of the build tools.
"""
