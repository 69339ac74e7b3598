"""Names for values that are added to a client's graph."""

from itertools import count

from onnx import ModelProto


class FreshNames:
    """Names that nothing in a model has."""

    def __init__(self, model: ModelProto) -> None:
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._taken.update(entry.name for entry in (*model.graph.input, *model.graph.output, *model.graph.initializer))

    def like(self, name: str) -> str:
        free = next(tried for tried in (f"{name}{suffix or ''}" for suffix in count()) if tried not in self._taken)
        self._taken.add(free)
        return free


def free_prefix(model: ModelProto) -> str:
    """One or more "_", with which no name of the graph starts."""
    graph = model.graph
    names = {info.name for info in (*graph.input, *graph.output, *graph.value_info)} | {tensor.name for tensor in graph.initializer}
    names.update(name for node in graph.node for name in (*node.input, *node.output))
    prefix = "_"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix
