"""A policy on another machine, behind openpi's protocol: a bundle whose one engine is the server.

`describe_server` asks the server what it is, compares it with what the user says of it, lets it compute one chunk, and
writes the bundle: `server.json` says where it is and under which names it takes frames, state and prompt. From there on
it is a bundle like any other: frames, units, goals, limits and the clock of chunks are those of every policy. The
connection lives in the inference process. A server that is late, hangs, or sends anything but a chunk costs its chunk,
and the arm ends its plan in order.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.bundle import (
    ActionNumber,
    ArmSpec,
    AxisSpec,
    Bundle,
    CameraSpec,
    EngineSpec,
    Feed,
    GraphSpec,
    Manifest,
    PolicySpec,
    StateNumber,
    TensorSpec,
    load_bundle,
)
from edge.bundle.files import replacing
from edge.bundle.loading import sha256 as file_sha256
from edge.bundle.manifest import MANIFEST, REMOTE, VERIFICATION, ActionKind, Unit
from edge.errors import InputError
from edge.policy.axes import Axes
from edge.policy.base import PolicyDriver
from edge.policy.graph_policy import GraphPolicy
from edge.policy.openpi import MOST_BYTES, ProtocolError, pack, unpack
from edge.registry import missing
from firmware_bridge.reading import Between, Name, Reader, Sized, one_line, typed

FAMILY = "openpi"
SERVER_FILE, SERVER = "server.json", "server"
OURS = "vla_edge"
"""The entry of a server's metadata in which `edge-serve` describes its policy."""
STATE, COMMANDED = "state", "commanded"
PREFIX, WEIGHTS, MASK = "prefix", "prefix_weights", "prefix_mask"
STATES, ACTIONS, HISTORY_MASK = "state_history", "action_history", "history_mask"
CONNECT_S = 5.0
PORT = 8000
"""Of openpi's own server."""
Key = Annotated[str, Sized(1, 128)]
READER = Reader(InputError, "correct it as docs/howto/remote.md shows")


@dataclass(frozen=True)
class RemoteCamera:
    """A camera by the bundle's name for it, and the key under which the server takes its frame."""

    key: Key
    height: Annotated[int, Between(1, 8192)]
    width: Annotated[int, Between(1, 8192)]


@dataclass(frozen=True)
class RemoteAxis:
    """A joint of the arm as the server has it. `travel` is what 0 and 100 percent are, in the arm's unit."""

    joint: Name
    state: Unit = "rad"
    action: Unit = "rad"
    kind: ActionKind = "position"
    travel: tuple[float, float] | None = None


@dataclass(frozen=True)
class RemoteSpec:
    """What a server computes from what, as its users say it or, with `edge-serve`, the server itself.

    cameras      by the name that `--camera NAME=URL` gives them
    axes         in the order of the numbers in state and actions; none: the arm's joints, in `unit`
    prefix       whether the server takes the goals that are committed until its chunk arrives, under "prefix", and
                 where the arm is commanded to be, under "commanded"
    history      steps of "state_history" and "action_history" (increments of the commanded positions) that it takes
    observations frames and states of one observation
    """

    rate_hz: Annotated[float, Between(0.5, 200)]
    horizon: Annotated[int, Between(2, 1024)]
    cameras: Annotated[dict[Name, RemoteCamera], Sized(0, 16)] = field(default_factory=dict)
    axes: Annotated[tuple[RemoteAxis, ...], Sized(0, 128)] = ()
    unit: Unit = "rad"
    execute: Annotated[int, Between(1, 1024)] | None = None
    state_key: Key = "observation/state"
    prompt_key: Key = "prompt"
    prefix: Literal["none", "frozen", "guided"] = "none"
    max_delay: Annotated[int, Between(0, 1024)] | None = None
    observations: Annotated[int, Between(1, 16)] = 1
    history: Annotated[int, Between(0, 1024)] = 0

    def axes_of(self, arm: ArmProfile) -> tuple[RemoteAxis, ...]:
        return self.axes or tuple(RemoteAxis(joint, self.unit, self.unit) for joint in arm.joints)


@dataclass(frozen=True)
class ServerAddress:
    """`openpi://HOST[:PORT]`, or `openpis://` with TLS; the port is 8000 unless given.

    `timeout_s` is for one chunk; a key is read from `key_file`.
    """

    url: Annotated[str, Sized(1, 256)]
    timeout_s: Annotated[float, Between(0.01, 600)] = 5.0
    key_file: Annotated[str, Sized(0, 256)] = ""

    @property
    def websocket(self) -> str:
        """Raises `InputError`."""
        for scheme, plain in (("openpi://", "ws://"), ("openpis://", "wss://")):
            host = self.url.removeprefix(scheme)
            if host != self.url and host:
                return f"{plain}{host}" if re.search(r":\d+(/|$)", host) else f"{plain}{host}:{PORT}"
        raise InputError(f"{one_line(self.url, 80)}: a policy server is openpi://HOST:PORT, or openpis:// with TLS")

    def headers(self) -> dict[str, str]:
        """Raises `InputError`."""
        if not self.key_file:
            return {}
        try:
            return {"Authorization": f"Api-Key {Path(self.key_file).read_text(encoding='ascii').strip()}"}
        except (OSError, ValueError) as error:
            raise InputError(f"{self.key_file}: no key could be read ({error})") from None


@dataclass(frozen=True)
class RemoteServer:
    """What `server.json` holds."""

    address: ServerAddress
    spec: RemoteSpec


class Connection:
    """One connection to a server; opens itself again after it was lost. Raises `RuntimeError` for a lost chunk."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._socket: Any = None
        self._opened = ExitStack()
        self.metadata: dict[str, Any] = {}

    def open(self) -> None:
        """Raises `InputError` with the fix."""
        try:
            from websockets.exceptions import InvalidStatus, WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise InputError(missing("a policy server", error)) from None
        where = self._address.url
        try:
            self._socket = self._opened.enter_context(
                connect(
                    self._address.websocket,
                    additional_headers=self._address.headers(),
                    compression=None,
                    max_size=MOST_BYTES,
                    open_timeout=CONNECT_S,
                    close_timeout=0.5,
                    proxy=None,
                )
            )
            self.metadata = self._received(CONNECT_S)
        except InvalidStatus as error:
            code = error.response.status_code
            fix = "give its key with key_file=" if code == 401 else "try again later"
            raise InputError(f"{where}: the server refuses (HTTP {code}); {fix}") from None
        except (OSError, TimeoutError, WebSocketException, ProtocolError, RuntimeError) as error:
            self.close()
            raise InputError(
                f"{where}: no policy server answers ({one_line(str(error) or type(error).__name__, 120)})"
            ) from None

    def chunk(self, observation: dict[str, Any]) -> NDArray[Any]:
        """The actions that the server answers with. Raises `RuntimeError`; the next call connects anew."""
        from websockets.exceptions import WebSocketException

        if self._socket is None:
            try:
                self.open()
            except InputError as error:
                raise RuntimeError(str(error)) from None
        try:
            self._socket.send(pack(observation))
            actions = self._received(self._address.timeout_s).get("actions")
        except TimeoutError:
            self.close()
            raise RuntimeError(f"the policy server did not answer within {self._address.timeout_s:g} s") from None
        except (OSError, WebSocketException, ProtocolError) as error:
            self.close()
            detail = one_line(str(error) or type(error).__name__, 160)
            raise RuntimeError(f"the policy server's answer was lost: {detail}") from None
        if not isinstance(actions, np.ndarray):
            raise RuntimeError("the policy server's answer has no array 'actions'")
        return actions

    def _received(self, timeout_s: float) -> dict[str, Any]:
        data = self._socket.recv(timeout=timeout_s)
        if isinstance(data, str):  # how a server reports an error
            raise RuntimeError(f"the policy server refused the observation: {one_line(data, 200)}")
        return unpack(data)

    def close(self) -> None:
        self._socket = None
        self._opened.close()


class RemoteEngine:
    """The server as an engine: its inputs become an observation, its answer the chunk."""

    def __init__(self, server: RemoteServer, spec: EngineSpec, task: str) -> None:
        self.inputs = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in spec.inputs}
        self.outputs = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in spec.outputs}
        self.connection = Connection(server.address)
        self._server, self._task = server, task

    def run(self) -> None:
        """Raises `RuntimeError` for a chunk that does not come, or is not one."""
        spec, chunk = self._server.spec, self.outputs["actions"]
        keys = {STATE: spec.state_key, **{name: camera.key for name, camera in spec.cameras.items()}}
        observation: dict[str, Any] = {keys.get(name, name): array for name, array in self.inputs.items()}
        observation[spec.prompt_key] = self._task
        actions = self.connection.chunk(observation)
        if actions.shape != chunk.shape or actions.dtype.kind not in "fiu":
            raise RuntimeError(f"the policy server sent actions {actions.shape} {actions.dtype}, not {chunk.shape}")
        chunk[:] = actions

    def describe(self) -> str:
        return self._server.address.url


@dataclass(frozen=True)
class OpenPi(PolicyDriver):
    """The family of bundles that describe a server."""

    def check(self, bundle: Bundle, arm: ArmProfile) -> None:
        Axes(bundle.arm(arm.embodiment, arm.joints), arm)
        read_server(bundle)

    def open(self, bundle: Bundle, arm: ArmProfile) -> GraphPolicy:
        spec = bundle.arm(arm.embodiment, arm.joints)
        engine = RemoteEngine(read_server(bundle), bundle.manifest.engines[SERVER], self.task)
        engine.connection.open()
        return GraphPolicy(bundle, spec, arm, {SERVER: engine}, None)


def read_server(bundle: Bundle) -> RemoteServer:
    """Raises `InputError`."""
    file = bundle.file(SERVER_FILE)
    return READER.into(RemoteServer, READER.json(file), file)


def read_spec(file: Path) -> RemoteSpec:
    """A description of a server, in TOML. Raises `InputError`."""
    return READER.into(RemoteSpec, READER.toml(file), file)


def describe_server(address: ServerAddress, arm: ArmProfile, task: str, into: Path, spec: RemoteSpec | None) -> Bundle:
    """Makes the bundle of a server, after it has computed one chunk. Raises `InputError`.

    spec  what the user says of the server; None where the server says it itself, as `edge-serve` does
    """
    connection = Connection(address)
    connection.open()
    connection.close()
    server = RemoteServer(address, spec or _own_words(address, connection.metadata))
    manifest = _manifest(server, arm)
    engine = RemoteEngine(server, manifest.engines[SERVER], task)
    try:
        began_s = time.monotonic()
        engine.run()
        first_s = time.monotonic() - began_s
    except RuntimeError as error:
        raise InputError(f"{address.url}: {error}") from None
    finally:
        engine.connection.close()
    if not np.isfinite(engine.outputs["actions"]).all():
        raise InputError(f"{address.url}: its first chunk is not finite")
    into.mkdir(parents=True, exist_ok=True)
    found = {
        "passed": True,
        "what": "one chunk of the right shape from the server; what it computes is not verified",
        "first_chunk_s": first_s,
    }
    files = {
        SERVER_FILE: json.dumps(asdict(server), indent=2) + "\n",
        VERIFICATION: json.dumps(found, indent=2) + "\n",
    }
    for name, text in files.items():
        with replacing(into / name) as partial:
            partial.write_text(text, encoding="utf-8")
    hashes = {name: file_sha256(into / name) for name in files}
    with replacing(into / MANIFEST) as partial:
        partial.write_text(_manifest(server, arm, hashes).to_json(), encoding="utf-8")
    return load_bundle(into)


def _own_words(address: ServerAddress, metadata: dict[str, Any]) -> RemoteSpec:
    """What `edge-serve` says of its policy: a description as JSON text, since metadata come flattened."""
    text = metadata.get(OURS)
    if not isinstance(text, str):
        raise InputError(
            f"{address.url}: the server does not say what its numbers mean; describe it with --policy-spec FILE.toml"
        )
    try:
        spec: RemoteSpec = typed(RemoteSpec, json.loads(text[: 1 << 20]), OURS)
        return spec
    except (ValueError, RecursionError) as error:
        raise InputError(f"{address.url}: {one_line(str(error), 160)}") from None


def _manifest(server: RemoteServer, arm: ArmProfile, files: dict[str, str] | None = None) -> Manifest:
    spec = server.spec
    axes = spec.axes_of(arm)
    width, several = len(axes), (spec.observations,) if spec.observations > 1 else ()
    cameras = tuple(
        CameraSpec(name, camera.height, camera.width, "crop", camera.key) for name, camera in spec.cameras.items()
    )
    horizon, history = spec.horizon, spec.history
    takes = [(TensorSpec(STATE, "float64", (*several, width)), Feed("state"))]
    for camera in cameras:
        frame = TensorSpec(camera.name, "uint8", (*several, camera.height, camera.width, 3))
        takes.append((frame, Feed("frame", camera=camera.name)))
    if spec.prefix != "none":
        takes.append((TensorSpec(COMMANDED, "float64", (width,)), Feed("commanded")))
        takes.append((TensorSpec(PREFIX, "float64", (horizon, width)), Feed("committed_goals")))
    if spec.prefix == "frozen":
        takes.append((TensorSpec(MASK, "bool", (horizon,)), Feed("committed_mask")))
    if spec.prefix == "guided":
        takes.append((TensorSpec(WEIGHTS, "float64", (horizon,)), Feed("prefix_weights")))
    if history:
        takes.append((TensorSpec(STATES, "float64", (history, width)), Feed("state_history")))
        takes.append((TensorSpec(ACTIONS, "float64", (history, width)), Feed("action_history")))
        takes.append((TensorSpec(HISTORY_MASK, "bool", (history,)), Feed("history_mask")))
    inputs, feeds = [tensor for tensor, _ in takes], {f"{SERVER}.{tensor.name}": feed for tensor, feed in takes}
    engine = EngineSpec(SERVER_FILE, tuple(inputs), (TensorSpec("actions", "float64", (spec.horizon, width)),))
    policy = PolicySpec(
        FAMILY,
        spec.horizon,
        precision=REMOTE,
        history=history,
        source=server.address.url,
        observations=spec.observations,
        execute=spec.execute or max(1, spec.horizon // 2),
        prefix=spec.prefix,
        max_delay=spec.max_delay,
    )
    rows = tuple(
        AxisSpec(
            axis.joint,
            StateNumber(column, axis.state),
            ActionNumber(column, axis.kind, axis.action),
            travel=axis.travel,
        )
        for column, axis in enumerate(axes)
    )
    graph = GraphSpec({SERVER: engine}, (), feeds, f"{SERVER}.actions")
    said = sha256(json.dumps(asdict(server.spec), sort_keys=True).encode()).hexdigest()
    arms = (ArmSpec(arm.embodiment, 1 / spec.rate_hz, rows),)
    return Manifest(policy, graph, cameras, arms, said, "edge-run --policy", files or {})


def spec_of(policy: GraphPolicy, horizon: int, prefix: Literal["none", "frozen", "guided"]) -> RemoteSpec:
    """How a policy of ours is described to clients; see `edge.doors.served`."""
    return RemoteSpec(
        rate_hz=1 / policy.arm.step_s,
        horizon=horizon,
        cameras={
            camera.name: RemoteCamera(f"observation/{camera.name}", *camera.frame_px) for camera in policy.cameras
        },
        axes=tuple(
            RemoteAxis(axis.joint, axis.state.unit, axis.action.unit, "position", axis.travel)
            for axis in policy.arm.axes
        ),
        execute=min(policy.execute_steps, horizon - 1),
        prefix=prefix,
        max_delay=policy.shape.max_delay if prefix != "none" else None,
        observations=policy.observations,
        history=policy.shape.history,
    )
