"""One file with everything in a home, and restoring a home from it.

archive.py   the file: a plain tar archive, written in one pass and read by a strict, bounded reader
rows.py      the database's rows in a form that SQLite and PostgreSQL share
sealing.py   the secrets' key under a passphrase
make.py      a home to a file, while hosts run
restore.py   a file to a home: staged, committed by one rename, then applied; a restore that was killed is finished
             by the next command
"""
