"""The parts of `llmasos_sdk.testing`."""
