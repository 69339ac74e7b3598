"""How much an owner may have."""
