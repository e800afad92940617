# The life of invocations, over the kernel:
#
# lifecycle.py  Invocations: begins, ends, cancels, finds and lists them
# running.py    those of this process, and requests from other processes to cancel one
# run.py        ActionRunner: runs actions of installed apps, and their hooks
# program_calls.py: models called by programs, without an app
# actions.py    checks inputs and outputs
# events.py     an invocation that a request started, followed to its end
# journal.py    the events of an invocation, for any number of readers
# journals.py   those of this process, written down and read back
# content.py    input and output, kept encrypted; idempotency.py: keys of requests
# records.py    every query; tables.py: the rows; result.py: how an action ended
