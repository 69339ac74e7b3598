"""The HTTP interface: one router per URL segment, and what they share."""
