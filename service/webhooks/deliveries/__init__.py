"""What is to be sent, and what came of it."""
