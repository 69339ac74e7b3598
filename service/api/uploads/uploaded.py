"""`id:` references: what was uploaded by itself becomes the input of a job, which gets copies of its own (.github/decisions/0010)."""

import re
from pathlib import PurePosixPath

from service.api.problems import ApiError, InvalidDatasetRef, InvalidModelRef
from service.data_roots import MODEL_REF
from service.digests import check_digest
from service.jobs.job import ID_SCHEME, JobInput
from service.jobs.uploads.repository import UploadRepository
from service.jobs.uploads.upload import ID_DIGITS, MAIN_PART, Upload, UploadKind
from service.storage.keys import input_key
from service.storage.store import ObjectStore

DATASET_REF = "dataset_ref"
ID = re.compile(rf"(model|dataset)_[0-9a-f]{{{ID_DIGITS}}}")


class UploadedInputs:
    """The inputs that one request takes from its owner's uploads. Synchronous."""

    def __init__(self, owner: str, repository: UploadRepository, store: ObjectStore) -> None:
        self._owner = owner
        self._repository = repository
        self._store = store
        # Further parts of the dataset, for where the request has none of its own.
        self._others: dict[str, JobInput] = {}

    def look_up(self, reference: str, param: str, sha256: str | None) -> JobInput:
        """The main part of the upload; that of `dataset_ref` gives the other parts as well, unless the request has them.

        Raises: InvalidModelRef, InvalidDatasetRef; DigestMismatch where its sha256 is not the one expected.
        """
        kind: UploadKind = "model" if param == MODEL_REF else "dataset"
        known_id = reference.removeprefix(ID_SCHEME)
        upload = self._repository.use(self._owner, known_id) if ID.fullmatch(known_id) else None
        if upload is None or upload.kind != kind:
            raise _refusal(f"There is no {kind} {known_id[:80]!a}.", param, f"GET /v1/{kind}s lists yours, and POST /v1/{kind}s makes one.")
        main = upload.files[MAIN_PART[kind]]
        check_digest(main.sha256, sha256, param)
        if param == DATASET_REF:
            self._others = {part: _to_input(upload, part) for part in upload.files if part != MAIN_PART[kind]}
        return _to_input(upload, MAIN_PART[kind])

    def take(self, inputs: dict[str, JobInput], job_id: str) -> dict[str, JobInput]:
        """All inputs of the job, those of uploads copied into its own place. Raises InvalidModelRef, InvalidDatasetRef."""
        others = {name: given for name, given in self._others.items() if name not in inputs}
        return {name: self._copy(name, given, job_id) for name, given in {**inputs, **others}.items()}

    def _copy(self, name: str, given: JobInput, job_id: str) -> JobInput:
        if given.key is None or given.ref is None:
            return given
        key = input_key(job_id, name, PurePosixPath(given.key).suffix)
        try:
            self._store.copy(given.key, key)
        except FileNotFoundError:
            raise _refusal(f"The file of {given.ref} is no longer stored.", f"{name}_ref", "Upload it again.") from None
        return given.model_copy(update={"key": key})


def _to_input(upload: Upload, part: str) -> JobInput:
    file = upload.files[part]
    return JobInput(key=file.key, ref=f"{ID_SCHEME}{upload.id}", filename=file.filename, bytes=file.bytes, sha256=file.sha256)


def _refusal(detail: str, param: str, suggestion: str) -> ApiError:
    refusal = InvalidModelRef if param == MODEL_REF else InvalidDatasetRef
    return refusal(detail, param=param, suggestion=suggestion)
