"""API keys: who may ask, as whom, for what and how much."""
