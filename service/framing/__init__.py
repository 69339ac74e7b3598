"""What a file is, told from the framing of its bytes as they stream past: for uploads, and for what a reference leads to."""
