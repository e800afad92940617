"""The only path to models.

- gateway.py: the path of a call. request.py: what may be asked. plan.py: the most that it can use.
- models.py, registry.py, adding.py: which models there are. routing.py: which one answers.
- engine.py, adapting.py, provider_stream.py, failures.py: litellm, what servers refuse, and what went wrong.
- answers.py, tool_calls.py, outcome.py, stream.py, usage.py: what came back, checked and counted.
- steps.py, guard.py, cache.py: where plugins take part. embedded/: the engines that the host runs itself.
"""
