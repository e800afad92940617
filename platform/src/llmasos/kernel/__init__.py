# The one path from an app, or a program, to anything outside it. Read in this order:
#
# invocation.py   who runs what, for whom, with which grants, until when: the value that everything is about
# capability.py   operations, what a capability is, and how its WIT functions become operations
# syscall.py      the Kernel: authorise, reserve, execute, settle, audit
# calls.py        what the kernel tracks of a running invocation: streams, deadline, pace, failures
# guest_calls.py  the edge: names and JSON text of an app in, WIT values out
# grants.py       compares what grants allow (pure); limits.py: how large and deep an app's payloads may be (pure)
# audit.py        the hash-chained log; observation.py: what observers receive
