# The life of invocations, over the kernel:
#
# lifecycle.py  Invocations: begin, end, cancel, find, list
# running.py    those of this process, and requests of other processes to cancel one
# run.py        ActionRunner: runs actions of installed apps, and their hooks
# actions.py    what an input must be, and what an output must be
# events.py     an invocation that a request began, followed to its end
# records.py    every query; tables.py: the rows; result.py: how an action ended
