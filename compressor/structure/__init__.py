"""Dead units (neurons, filters, features) out of a graph, exactly: the same outputs from smaller tensors. `compact` is the way in."""

from compressor.structure.compaction import Compaction, compact

__all__ = ["Compaction", "compact"]
