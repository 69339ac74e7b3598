"""The search for the smallest model inside the accuracy budget: branches of different KL weight, each fitted in rounds and swept."""

from compressor.search.search import Outcome, Search

__all__ = ["Outcome", "Search"]
