"""`Tally`: what is known of a file when the last of its bytes has passed, whoever sent it and wherever it goes."""

import hashlib

from service.framing.model_kinds import ModelFileSkimmer
from service.framing.skimmers import DatasetSkimmer, Skimmer

# Parts of a request that are models; all others are rows.
MODEL_PARTS = frozenset({"model", "model_ref"})


def skimmer_for(part: str) -> Skimmer:
    return ModelFileSkimmer(part) if part in MODEL_PARTS else DatasetSkimmer(part)


class Tally:
    """Counts, skims and hashes the chunks of the file that a request has, or names, as `part`."""

    def __init__(self, part: str) -> None:
        self.num_bytes = 0
        self._digest = hashlib.sha256()
        self._skimmer = skimmer_for(part)

    def take(self, chunk: bytes) -> None:
        """Raises InvalidModel or InvalidDataset as soon as the bytes show it."""
        self.num_bytes += len(chunk)
        self._skimmer.feed(chunk)
        self._digest.update(chunk)

    def finish(self) -> None:
        """Raises InvalidModel or InvalidDataset where the file is not whole."""
        self._skimmer.finish()

    @property
    def suffix(self) -> str | None:
        """Says which kind of file it is; None until the bytes have shown it."""
        return self._skimmer.suffix

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
