"""From the bytes of a request to checked objects in the store, in constant memory."""
