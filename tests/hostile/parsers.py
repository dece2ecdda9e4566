"""What reads files of others: for each a valid file, its mutations, its first check, and the reading itself."""

from __future__ import annotations

import json
import shutil
import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import strategies as st
from mcap.writer import CompressionType, Writer

from edge.arms import load_arm
from edge.arms.reading import PROFILE_FOLDER
from edge.bundle import read_manifest
from edge.bundle.signature import SIGNATURE, SigningKey, Unsigned, check_signature
from edge.errors import VlaEdgeError
from edge.log.mcap_log import LENGTH, PROFILE, LogReader, encode_message, unpack_batch
from edge.log.records import Record, decode
from edge.log.topics import TOPICS, Messages
from edge.run.replay import Replay
from export.families.action_prior.archive import read_document
from export.families.action_prior.checkpoint import load_checkpoint
from export.families.action_prior.embodiment import Embodiment, SlotStatistics
from export.families.base import CheckpointError
from export.families.lerobot.folder import read_folder
from export.training.instructions import word_tokenizer
from export.training.lerobot import DatasetError, read_info, read_rows
from export.training.mapping import SHIPPED, choose_mapping, read_mapping
from export.training.readings import read_as
from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.feetech.calibration import read_calibration
from firmware_bridge.reading import ReadError, parse_json, parse_toml, read_bytes
from tests.export.small import small
from tests.hostile.mutations import DEEP, NASTY, as_json, half, json_files, mutated, spoiled, toml_files
from tests.recordings import write_dataset

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests/edge/run/recorded/stop.mcap"
POLICY = ROOT / "tests/export/golden"
SO101 = load_arm("so101")


@dataclass(frozen=True)
class Parser:
    """One reader of files.

    inputs   what is drawn; `write` makes files of it at a path of its own and returns the file that is named
    first    the first check, which raises for what it refuses
    read     the whole reading
    errors   what may be raised, each with a message of one line
    command  the arguments of the real command for the file, in a folder of its own
    """

    inputs: st.SearchStrategy[Any]
    write: Callable[[Any, Path], Path]
    first: Callable[[Path], object]
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    command: Callable[[Path, Path], tuple[str, list[str]]]


def put(data: bytes, place: Path) -> Path:
    place.write_bytes(data)
    return place


def is_json(path: Path) -> None:
    parse_json(read_bytes(path))


def is_toml(path: Path) -> None:
    parse_toml(read_bytes(path))


def manifest_parser(bundle: Path) -> Parser:
    def write(data: bytes, place: Path) -> Path:
        """The bundle with another manifest; its other files are the bundle's own."""
        if not place.exists():
            shutil.copytree(bundle, place)
        (place / "manifest.json").write_bytes(data)
        return place

    valid = json.loads((bundle / "manifest.json").read_text())
    return Parser(
        json_files(valid),
        write,
        lambda path: is_json(path / "manifest.json"),
        lambda path: read_manifest(path / "manifest.json"),
        (VlaEdgeError,),
        lambda path, out: ("edge.cli.build", [str(path), "--dry-run"]),
    )  # fmt: skip


def signature_parser(folder: Path) -> Parser:
    """A signed folder with another signature."""
    signed, private, public = folder / "signed", folder / "key.pem", folder / "key.pub"
    signed.mkdir()
    for name in ("manifest.json", "backbone.onnx"):
        (signed / name).write_text("{}")
    key = ec.generate_private_key(ec.SECP256R1())
    private.write_bytes(
        key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    valid = json.loads(SigningKey(private).sign(signed).read_text())

    def write(data: bytes, place: Path) -> Path:
        if not place.exists():
            shutil.copytree(signed, place)
        (place / SIGNATURE).write_bytes(data)
        return place

    return Parser(
        json_files(valid),
        write,
        lambda path: is_json(path / SIGNATURE),
        lambda path: check_signature(path, public),
        (Unsigned, VlaEdgeError),
        lambda path, out: ("edge.cli.build", [str(path), "--dry-run", "--trust", str(public)]),
    )  # fmt: skip


def profile_parser() -> Parser:
    def named(data: bytes, place: Path) -> Path:
        return put(data, place.with_suffix(".toml"))

    return Parser(
        toml_files((PROFILE_FOLDER / "franka_hand.toml").read_text()),
        named,
        is_toml,
        lambda path: load_arm(str(path)),
        (VlaEdgeError,),
        lambda path, out: ("edge.cli.run", ["--arm", str(path), "--bundle", str(out / "none")]),
    )


def calibration_parser() -> Parser:
    joints = {
        joint: {"id": number, "direction": 1, "homing_offset": 7, "range_min": 700, "range_max": 3400}
        for number, joint in enumerate(SO101.joints, start=1)
    }
    return Parser(
        json_files({"format": 1, "arm": "so101", "joints": joints}),
        put,
        is_json,
        lambda path: read_calibration(path, "so101", SO101.joints),
        (DriveError,),
        lambda path, out: ("edge.cli.adapter", ["--arm", "so101", "--drive", f"feetech:{out}/none?calibration={path}"]),
    )


def mapping_parser() -> Parser:
    return Parser(
        toml_files((SHIPPED / "so101_follower.toml").read_text()),
        put,
        is_toml,
        read_mapping,
        (DatasetError,),
        lambda path, out: ("export.commands.train", ["prior", "--data", str(out / "none"), "--mapping", str(path),
                                                     "--out", str(out / "trained")]),
    )  # fmt: skip


def checkpoint_parser(folder: Path) -> Parser:
    """The document of a checkpoint, without weights: those are compared when a policy is built."""
    statistics = SlotStatistics(tuple(range(7)), (0.0,) * 7, (1.0,) * 7)
    arm = Embodiment("fr3", 0, 0.1, tuple(f"j{joint}" for joint in range(7)), statistics, statistics)
    plain = {
        "format": 1,
        "config": json.loads(json.dumps(small().to_plain())),
        "state_dict": {"backbone.query": [1.0, 2.0], "encoder.cls": [3.0]},
        "normalisation": {arm.name: arm.statistics()},
        "embodiments": {arm.name: arm.describe()},
        "tokenizer": word_tokenizer(("reach the red cube",)).to_str(),
        "cameras": ["front"],
    }

    def with_tensors(document: Any) -> Any:
        if isinstance(document, dict) and isinstance(document.get("state_dict"), dict):
            weights = document["state_dict"]
            floats = {
                name: torch.tensor(value)
                for name, value in weights.items()
                if isinstance(value, list) and value and all(type(one) is float for one in value)
            }
            document["state_dict"] = {**weights, **floats}
        return document

    def write(drawn: Any, place: Path) -> Path:
        if isinstance(drawn, bytes):
            return put(drawn, place)
        torch.save(with_tensors(drawn), place)
        return place

    valid = folder / "valid.pt"
    torch.save(with_tensors(json.loads(json.dumps(plain))), valid)
    odd = st.sampled_from([{}, [], None, {"state_dict": torch.zeros(1).expand(10**12)}, {"format": torch.zeros(3)}])
    return Parser(
        half(mutated(plain), spoiled(valid.read_bytes()), odd, st.binary(max_size=200)),
        write,
        read_document,
        load_checkpoint,
        (CheckpointError,),
        lambda path, out: ("export.commands.export", [str(path), "-o", str(out / "bundle"), "--precision", "int8"]),
    )


def dataset_parser(folder: Path) -> Parser:
    """A small dataset with one of its four kinds of files changed."""
    base = write_dataset(folder / "dataset")
    info = json.loads((base / "meta/info.json").read_text())
    names = ["meta/tasks.parquet", *(str(path.relative_to(base)) for path in base.glob("*/*/*/*.parquet"))]
    names += [str(path.relative_to(base)) for path in base.glob("data/*/*.parquet")]

    def cell(name: str, place: float, value: Any) -> tuple[str, bytes]:
        """One column of a table replaced by another kind of value."""
        table = pq.read_table(base / name)
        column = int(place * (table.num_columns - 1))
        try:
            values = pa.array([value] * table.num_rows)
            table = table.set_column(column, table.column_names[column], values)
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            table = table.drop_columns([table.column_names[column]])
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return name, sink.getvalue().to_pybytes()

    small_values = st.sampled_from(
        [None, -1, 0, 10**12, 2.5, float("nan"), "x", "../x", [1.0] * 7, [], [None], b"\xff"]
    )
    tables = st.builds(cell, st.sampled_from(names), st.floats(0, 1), small_values)
    spoiled_tables = st.one_of(*(st.tuples(st.just(name), spoiled((base / name).read_bytes())) for name in set(names)))
    described = st.tuples(st.just("meta/info.json"), json_files(info))

    def write(drawn: tuple[str, bytes], place: Path) -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place)
        (place / drawn[0]).write_bytes(drawn[1])
        return place

    def read(path: Path) -> None:
        found = read_info(path)
        mapping = choose_mapping(found, ())
        for name in mapping.columns:
            found.feature(name, "the mapping")
        read_as(found, read_rows(found, mapping.columns), mapping, None)

    return Parser(
        half(tables | st.tuples(st.just("meta/info.json"), mutated(info).map(as_json)), described, spoiled_tables),
        write,
        lambda path: (is_json(path / "meta/info.json"), pq.read_schema(path / names[-1])),
        read,
        (DatasetError,),
        lambda path, out: ("export.commands.train", ["prior", "--data", str(path), "--weights", "1", "2",
                                                     "--out", str(out / "trained")]),
    )  # fmt: skip


def log_parser() -> Parser:
    """The beginning of a recorded run, with one of its records changed and the messages that follow from it."""
    batches = [
        (time_ns, list(unpack_batch(data, RECORDED))) for topic, time_ns, data in few_messages() if topic == "/journal"
    ]
    records = [record for _, batch in batches for record in batch]
    time_ns = batches[0][0]

    def plain_of(record: Record) -> Any:
        try:
            return json.loads(record.body)
        except ValueError:
            return None

    described = [index for index, record in enumerate(records) if isinstance(plain_of(record), dict)]
    # the first of each kind is where a replay begins; the hundredth clock is like the first
    first_of = {records[index].kind: index for index in reversed(described)}
    changed = st.one_of(
        *(st.tuples(st.just(index), mutated(plain_of(records[index])).map(as_json)) for index in first_of.values())
    )
    raw = st.integers(0, len(records) - 1).flatmap(
        lambda index: st.tuples(
            st.just(index), spoiled(records[index].body or b"x") | st.sampled_from(DEEP).map(str.encode)
        )
    )
    heads = st.tuples(
        st.integers(0, len(records) - 1),
        st.sampled_from(NASTY).map(lambda value: struct.pack("<I", 8) + as_json({"arrays": value}) + bytes(64)),
    )

    def write(drawn: tuple[int, bytes] | bytes, place: Path) -> Path:
        if isinstance(drawn, bytes):
            return put(drawn, place)
        at, body = drawn
        record = records[at]
        altered = [*records[:at], Record(record.number, record.host_ns, record.kind, body), *records[at + 1 :]]
        write_log(place, altered, time_ns)
        return place

    whole = io_of(records, time_ns)
    return Parser(
        half(changed, raw, heads, spoiled(whole), st.binary(max_size=200)),
        write,
        lambda path: next(LogReader(path).records()),
        lambda path: Replay(LogReader(path).records()).run(),
        (VlaEdgeError,),
        lambda path, out: ("edge.cli.run", ["--replay", str(path)]),
    )


def few_messages(count: int = 60) -> list[tuple[str, int, bytes]]:
    found = []
    for message in LogReader(RECORDED).messages():
        found.append(message)
        if len(found) >= count and message[0] == "/journal":
            break
    return found


def write_log(place: Path, records: list[Record], time_ns: int) -> None:
    with place.open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start(profile=PROFILE, library="a test")
        channels = {topic: writer.register_channel(topic, "json", 0) for topic in (*TOPICS, "/journal")}
        messages = Messages()
        for record in records:
            try:
                told = [(name, encode_message(content)) for name, content in messages.of(record)]
            except Exception:  # a record that says nothing that can be shown; the reader is to find that out
                told = []
            for name, content in told:
                writer.add_message(channels[name], time_ns, content, time_ns)
        batch = b"".join(LENGTH.pack(len(data)) + data for data in (record.pack() for record in records))
        packed = json.dumps({"records": b64encode(batch).decode()}).encode()
        writer.add_message(channels["/journal"], time_ns, packed, time_ns)
        writer.finish()


def io_of(records: list[Record], time_ns: int) -> bytes:
    place = (
        Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp")
        / f"vla-edge-log-{np.random.default_rng().integers(2**40)}"
    )
    write_log(place, records, time_ns)
    data = place.read_bytes()
    place.unlink()
    return data


def policy_parser(folder: Path, policy: Path) -> Parser:
    """A policy folder of LeRobot with one of its documents changed."""
    files = {path.name: json.loads(path.read_text()) for path in policy.glob("*.json")}
    anything = st.one_of(*(st.tuples(st.just(name), json_files(document)) for name, document in files.items()))
    changed = st.one_of(*(st.tuples(st.just(name), mutated(one).map(as_json)) for name, one in files.items()))
    tensors = [path for path in policy.glob("*.safetensors") if path.stat().st_size < 1 << 20]
    spoiled_tensors = st.one_of(*(st.tuples(st.just(path.name), spoiled(path.read_bytes())) for path in tensors))

    def write(drawn: tuple[str, bytes], place: Path) -> Path:
        place.mkdir(exist_ok=True)
        for path in policy.resolve().iterdir():
            link = place / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        (place / drawn[0]).unlink()
        (place / drawn[0]).write_bytes(drawn[1])
        return place

    return Parser(
        half(changed, anything, spoiled_tensors),
        write,
        lambda path: [is_json(path / name) for name in files],
        read_folder,
        (CheckpointError,),
        lambda path, out: ("export.commands.export", [str(path), "-o", str(out / "bundle"), "--precision", "int8"]),
    )


FIRST = (
    ReadError,
    VlaEdgeError,
    CheckpointError,
    DatasetError,
    DriveError,
    OSError,
    ValueError,
    pa.ArrowException,
    StopIteration,
)
"""What a first check may raise."""


def parsers(folder: Path, bundle: Path | None, policy: Path | None) -> dict[str, Parser]:
    """All of them; a bundle and a policy folder have to be given."""
    found = {
        "checkpoint": checkpoint_parser(folder),
        "dataset": dataset_parser(folder),
        "log": log_parser(),
        "calibration": calibration_parser(),
        "profile": profile_parser(),
        "mapping": mapping_parser(),
        "signature": signature_parser(folder),
    }
    if bundle is not None:
        found["manifest"] = manifest_parser(bundle)
    if policy is not None:
        found["policy folder"] = policy_parser(folder, policy)
    return found


__all__ = ["FIRST", "Parser", "decode", "parsers"]
