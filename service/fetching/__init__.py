"""Files from elsewhere: which addresses may be asked, and how a reference becomes bytes. Knows no FastAPI and no torch."""
