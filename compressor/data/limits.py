"""Limits on untrusted dataset files. Every one is checked before what it bounds is allocated or decoded."""

GIB = 2**30
MIB = 2**20

# The rows are held in memory while training; 20 million is beyond every in-memory dataset that the method has been used on.
MAX_ROWS = 20_000_000

# A 64x64 colour image flattened to one column per value has 12,288; a schema of many more is slow to walk and no table of features.
MAX_COLUMNS = 20_000

# What a parquet says of its columns in JSON. pandas takes about 120 bytes a column, so this is room for three times MAX_COLUMNS.
MAX_METADATA_BYTES = 8 * MIB

# Row groups are decoded one after the other, each as a whole; writers make them of 1 MiB to 1 GiB. Both the declared size and what
# the columns take once decoded must stay below.
MAX_ROW_GROUP_BYTES = 2 * GIB
MAX_ROW_GROUPS = 100_000

# All arrays of one file together, as they lie in memory after decoding: uint8 for images, float32 or int64 for numbers and labels.
# A .npz must stay below it with what it stores, too.
MAX_EXPANDED_BYTES = 8 * GIB

# One encoded image. MAX_PIXELS of incompressible RGB are 48 MiB, but what fits a model's input is far smaller.
MAX_CELL_BYTES = 16 * MIB

# One decoded image: 4096 x 4096, above the input of any image classifier. PIL's own limit (89 million) only warns.
MAX_PIXELS = 4096 * 4096

# A dictionary-encoded column repeats one cell for a few bits a row, so no declared size bounds a batch but its number of rows:
# batches are cut so that even rows of the largest cell that the row group can hold stay inside this. (One single list of numbers
# can be repeated likewise within itself; there the trainer's limit on memory is the wall.)
MAX_BATCH_BYTES = 128 * MIB
MAX_BATCH_ROWS = 1024

# A .npz has an array per model input and the labels; archives of thousands of entries are bombs.
MAX_ARCHIVE_ENTRIES = 1_000
