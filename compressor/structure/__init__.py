"""What contributes nothing out of a graph, exactly: dead units (neurons, filters, features) by `compact`, rows of tables by
`merge_zero_rows`."""

from compressor.structure.compaction import Compaction, compact, keep_all
from compressor.structure.rows import merge_zero_rows

__all__ = ["Compaction", "compact", "keep_all", "merge_zero_rows"]
