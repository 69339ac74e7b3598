"""The README's tables, from the code they describe. `python -m tests.architecture.readme_tables` writes them into README.md."""

import json
from collections import defaultdict
from pathlib import Path

from pydantic.fields import FieldInfo

from compressor.config import CompressionConfig
from compressor.errors import ClientError, GateNotMet
from compressor.graph.ops import FAMILIES, supported_operators
from compressor.protocol import ExitCode
from service.api.problems import raised_errors
from service.settings import ENV_PREFIX, Settings

README = Path(__file__).parents[2] / "README.md"


def config_table() -> str:
    rows = [f"| `{name}` | {_shown(_default(field))} | {field.description} |" for name, field in CompressionConfig.model_fields.items()]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def settings_table() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = _default(field)
        listed = ",".join(map(str, default)) or None if isinstance(default, tuple) else default
        rows.append(f"| `{ENV_PREFIX}{name.upper()}` | {_shown(listed)} | {field.description} |")
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def error_table() -> str:
    """The library's errors, then those of the service, which have no exit code."""
    rows = [f"| `{cls.code}` | {cls.title} | {cls.status} |{_exit_code(cls)} |" for cls in raised_errors()]
    return "\n".join(["| code | meaning | status | exit |", "|---|---|---|---|", *rows])


def operator_table() -> str:
    """One row per family and treatment of weights, in the order of the families."""
    families = [family.__name__.rsplit(".", 1)[-1] for family in FAMILIES]
    rows: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, found in supported_operators().items():
        rows[families.index(found.family), found.weights].append(f"`{name}`")
    lines = [f"| {families[index]} | {', '.join(names)} | {weights} |" for (index, weights), names in sorted(rows.items())]
    return "\n".join(["| family | operators | a variational weight |", "|---|---|---|", *lines])


def _default(field: FieldInfo) -> object:
    return field.get_default(call_default_factory=False)


def _shown(default: object) -> str:
    if default is None:
        return "unset"
    return f"`{default}`" if isinstance(default, (str, Path)) else f"`{json.dumps(default)}`"


def _exit_code(cls: type[Exception]) -> str:
    if cls.__module__ != "compressor.errors":
        return ""
    if issubclass(cls, ClientError):
        return f" {ExitCode.CLIENT_ERROR:d}"
    return f" {ExitCode.GATE_NOT_MET if issubclass(cls, GateNotMet) else ExitCode.FAILED:d}"


TABLES = {"config": config_table, "settings": settings_table, "errors": error_table, "operators": operator_table}


def block(readme: str, name: str) -> str:
    """What stands between the markers `name`."""
    start, end = _bounds(readme, name)
    return readme[start:end].strip()


def with_tables(readme: str) -> str:
    for name, table in TABLES.items():
        start, end = _bounds(readme, name)
        readme = f"{readme[:start]}\n{table()}\n{readme[end:]}"
    return readme


def _bounds(readme: str, name: str) -> tuple[int, int]:
    start = readme.index("-->", readme.index(f"<!-- begin: {name} ")) + len("-->")
    return start, readme.index(f"<!-- end: {name} -->", start)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
