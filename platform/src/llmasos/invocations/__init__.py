# The life of invocations, over the kernel:
#
# lifecycle.py  Invocations: begins, ends, cancels, finds and lists them
# running.py    those of this process, and requests from other processes to cancel one
# run.py        ActionRunner: runs actions of installed apps, and their hooks
# actions.py    checks inputs and outputs
# events.py     an invocation that a request started, followed to its end
# records.py    every query; tables.py: the rows; result.py: how an action ended
