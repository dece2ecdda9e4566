"""Whether a graph is whole: every input has one source of its own type and shape, in an order in which it can run."""

from __future__ import annotations

from edge.bundle.manifest import Feed, Manifest, TensorSpec

WIDE = -1
"""In a feed's shape: as many columns as the tensor has."""


def check_wiring(manifest: Manifest) -> None:
    """Raises `ValueError`, which names the port."""
    graph = manifest.graph
    inputs = {f"{name}.{tensor.name}": tensor for name, spec in graph.engines.items() for tensor in spec.inputs}
    outputs = {f"{name}.{tensor.name}": tensor for name, spec in graph.engines.items() for tensor in spec.outputs}
    _check_names(manifest)
    _check_sources(manifest, inputs)
    for source, target in graph.links:
        _check_link(manifest, source, target, inputs, outputs)
    for port, feed in graph.feeds.items():
        if port not in inputs:
            raise ValueError(f"graph.feeds names '{port}', which is no engine's input")
        _check_feed(manifest, port, feed, inputs[port])
    if graph.result not in outputs:
        raise ValueError(f"graph.result is '{graph.result}', which is no engine's output")
    _check_result(manifest, outputs[graph.result])


def _check_names(manifest: Manifest) -> None:
    for name, spec in manifest.engines.items():
        if "." in name or "/" in name:
            raise ValueError(f"an engine's name has no . and no /, as '{name}' has")
        for tensors in (spec.inputs, spec.outputs):
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise ValueError(f"engine '{name}' has a port twice")
    for what, names in (
        ("camera", [camera.name for camera in manifest.cameras]),
        ("arm", [arm.name for arm in manifest.arms]),
    ):
        if len(set(names)) != len(names):
            raise ValueError(f"two of the policy's {what}s have the same name")


def _check_sources(manifest: Manifest, inputs: dict[str, TensorSpec]) -> None:
    linked = [target for _, target in manifest.graph.links]
    for port in inputs:
        sources = linked.count(port) + (port in manifest.graph.feeds)
        if sources != 1:
            raise ValueError(f"input '{port}' has {sources or 'no'} source{'s' if sources else ''}; each has one")


def _check_link(
    manifest: Manifest, source: str, target: str, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]
) -> None:
    if source not in outputs or target not in inputs:
        raise ValueError(f"graph.links joins '{source}' to '{target}', which are no output and input")
    order = list(manifest.engines)
    if order.index(source.partition(".")[0]) >= order.index(target.partition(".")[0]):
        raise ValueError(f"'{target}' is linked to '{source}', whose engine runs later")
    made, taken = outputs[source], inputs[target]
    if (made.dtype, made.shape) != (taken.dtype, taken.shape):
        raise ValueError(f"'{source}' is {made.dtype} {list(made.shape)}, '{target}' {taken.dtype} {list(taken.shape)}")


def feed_shape(manifest: Manifest, feed: Feed, port: str) -> tuple[int, ...] | None:
    """The shape that a feed fills, without leading ones; None for any. Raises `ValueError`."""
    policy, text = manifest.policy, manifest.text
    several = (policy.observations,) if policy.observations > 1 else ()
    if feed.kind == "frame":
        camera = next((one for one in manifest.cameras if one.name == feed.camera), None)
        if camera is None:
            raise ValueError(f"'{port}' shows camera '{feed.camera}', which is none of the policy's")
        return (*several, camera.height, camera.width, 3)
    if feed.kind == "frames":
        sizes = {camera.frame_px for camera in manifest.cameras}
        if len(sizes) != 1 or several:
            raise ValueError(f"'{port}' shows all cameras at once, which takes one size and one observation")
        return (len(manifest.cameras), *sizes.pop(), 3)
    if feed.kind in ("tokens", "token_mask"):
        if text is None:
            raise ValueError(f"'{port}' takes {feed.kind}, and the manifest has no text")
        return (text.budget,)
    shapes: dict[str, tuple[int, ...]] = {
        "state": (*several, WIDE),
        "commanded": (WIDE,),
        "state_history": (policy.history, WIDE),
        "action_history": (policy.history, WIDE),
        "history_mask": (policy.history,),
        "has_history": (),
        "committed_goals": (policy.horizon, WIDE),
        "committed_mask": (policy.horizon,),
        "prefix_weights": (policy.horizon,),
    }
    return shapes.get(feed.kind)


TYPES: dict[str, tuple[str, ...]] = {
    "frame": ("uint8",),
    "frames": ("uint8",),
    "history_mask": ("bool",),
    "has_history": ("bool",),
    "tokens": ("int64", "int32"),
    "token_mask": ("bool",),
    "committed_mask": ("bool",),
    "constant": ("float32", "float64", "int64", "int32", "bool"),
}
NUMBERS = ("float32", "float64", "float16")


def _check_feed(manifest: Manifest, port: str, feed: Feed, tensor: TensorSpec) -> None:
    types, shape = TYPES.get(feed.kind, NUMBERS), feed_shape(manifest, feed, port)
    if tensor.dtype not in types:
        raise ValueError(f"'{port}' is {tensor.dtype}, {feed.kind} needs {' or '.join(types)}")
    if shape is not None and not fits(tensor.shape, shape):
        wanted = ["columns" if size == WIDE else size for size in shape]
        raise ValueError(
            f"'{port}' is {list(tensor.shape)}, {feed.kind} needs {wanted}".replace("'columns'", "columns")
        )
    actions = feed.kind in ("action_history", "committed_goals") or feed.axes_only
    if actions or feed.kind in ("state", "commanded", "state_history"):
        _check_columns(manifest, port, tensor.shape[-1] if tensor.shape else 0, actions)
    if feed.kind == "constant":
        count = 1
        for size in tensor.shape:
            count *= size
        for arm in manifest.arms:
            if len(arm.constants.get(feed.name, ())) != count:
                found = len(arm.constants.get(feed.name, ()))
                raise ValueError(f"'{port}' takes {count} numbers, arm '{arm.name}' has {found} of '{feed.name}'")


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a tensor has the wanted shape behind leading ones."""
    extra = len(shape) - len(wanted)
    if extra < 0 or any(size != 1 for size in shape[:extra]):
        return False
    return all(want in (WIDE, have) for have, want in zip(shape[extra:], wanted))


def _check_columns(manifest: Manifest, port: str, columns: int, actions: bool) -> None:
    for arm in manifest.arms:
        most = max((axis.action if actions else axis.state).column for axis in arm.axes)
        if most >= columns:
            raise ValueError(f"'{port}' has {columns} columns, arm '{arm.name}' uses number {most}, counted from 0")


def _check_result(manifest: Manifest, tensor: TensorSpec) -> None:
    horizon, port = manifest.policy.horizon, manifest.graph.result
    if tensor.dtype not in NUMBERS or not fits(tensor.shape, (horizon, WIDE)):
        raise ValueError(
            f"the result '{port}' is {tensor.dtype} {list(tensor.shape)}, a chunk is ({horizon}, columns) of float32"
        )
    _check_columns(manifest, port, tensor.shape[-1], True)
    for arm in manifest.arms:
        kinds = {axis.action.kind for axis in arm.axes}
        if "increment" in kinds and manifest.policy.first_goal_step == 0:
            raise ValueError("increments begin with the observed step: first_goal_step is 1")
