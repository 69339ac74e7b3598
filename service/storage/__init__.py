"""Where files lie: one object store, and the layout of its keys."""
