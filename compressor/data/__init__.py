"""A dataset reference's local files -> arrays in the shape of the model's inputs. The files are untrusted: see limits.py."""

from compressor.data.dataset import Dataset, Parts
from compressor.data.loading import load_parts

__all__ = ["Dataset", "Parts", "load_parts"]
