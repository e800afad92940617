"""The one way to models: gateway.py is the path, models.py and registry.py what there is, engine.py calls it."""
