"""The reader: what LeRobot's own writer wrote, what ours wrote, and every way a dataset can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from export.training.lerobot import DatasetError, read_frames, read_info, read_rows
from export.training.lerobot.rows import read_parquet

GOLDEN = Path(__file__).parent / "golden" / "so101_follower"
"""Written by LeRobot 0.4.4 itself: `python tools/lerobot_compat.py write DIR`."""
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
COLUMNS = ("observation.state", "action")


def golden_picture(episode: int, step: int, height: int, width: int) -> np.ndarray:
    """The picture that was recorded (`tools/lerobot_compat.py`)."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows * 3 + 20 * episode, columns * 3, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    picture[8 : 8 + height // 4, step : step + width // 4] = (220, 40, 40)
    return picture


def test_a_dataset_of_lerobots_own_writer() -> None:
    info = read_info(GOLDEN)
    assert (info.robot, info.fps, info.episodes, info.frames) == ("so101_follower", 30.0, 3, 72)
    assert info.cameras() == (FRONT, WRIST)
    rows = read_rows(info, COLUMNS)
    step, episode = np.arange(72) % 24, np.arange(72) // 24
    wanted = 30 * np.sin(0.1 * step[:, None] + episode[:, None] + np.arange(6))
    assert np.abs(rows.columns["action"] - wanted).max() < 1e-5
    given = np.array([rows.tasks[task] for task in rows.task])
    assert np.array_equal(given == "wave", (episode == 1) & (step >= 12))


def test_frames_of_lerobots_videos_and_images_are_those_recorded() -> None:
    info = read_info(GOLDEN)
    rows = read_rows(info, COLUMNS)
    wanted = np.array([0, 5, 24, 47, 48, 71])
    video = read_frames(info, rows, FRONT, wanted, (48, 64))
    image = read_frames(info, rows, WRIST, wanted, (48, 48))
    recorded = np.stack([golden_picture(row // 24, row % 24, 48, 64) for row in range(72)]).astype(int)
    for row, picture, exact in zip(wanted, video, image):
        error = np.abs(recorded - picture).mean(axis=(1, 2, 3))
        shown = int(np.argmin(error))
        assert error[row] < 4, "AV1 at the quality that LeRobot chooses"
        assert shown == row - row % 2, "every other frame; at that quality the one in between repeats it"
        assert np.array_equal(exact, golden_picture(row // 24, row % 24, 48, 48))


def test_pictures_are_cropped_around_the_centre_and_averaged() -> None:
    info = read_info(GOLDEN)
    rows = read_rows(info, COLUMNS)
    small = read_frames(info, rows, WRIST, np.array([3]), (12, 24))[0]
    middle = golden_picture(0, 3, 48, 48)[12:36].reshape(12, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - middle).max() <= 0.5
    uneven = read_frames(info, rows, WRIST, np.array([3]), (32, 32))[0]
    assert uneven.shape == (32, 32, 3) and abs(float(uneven.mean()) - golden_picture(0, 3, 48, 48).mean()) < 2
    with pytest.raises(DatasetError, match="48x48 are too small for a policy that sees 64x64"):
        read_frames(info, rows, WRIST, np.array([0]), (64, 64))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two parts of two episodes each, 10 Hz, with a video."""
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    spec = {"observation.state": Vector(("a", "b")), "action": Vector(("a", "b")), FRONT: Camera(32, 32)}
    with DatasetWriter(folder, DatasetSpec(10, "fr3", spec), episodes_per_part=2) as writer:
        for number in range(4):
            columns = {name: rng.normal(size=(9, 2)) for name in COLUMNS}
            frames = np.broadcast_to(np.arange(9, dtype=np.uint8)[:, None, None, None] * 20 + number, (9, 32, 32, 3))
            writer.add_episode({**columns, FRONT: frames}, "reach")
    return folder


def read(folder: Path) -> None:
    info = read_info(folder)
    rows = read_rows(info, COLUMNS)
    read_frames(info, rows, FRONT, np.arange(len(rows.episode)), (32, 32))


def test_our_own_dataset_is_read_with_every_frame_in_its_place(dataset: Path) -> None:
    info = read_info(dataset)
    rows = read_rows(info, COLUMNS)
    frames = read_frames(info, rows, FRONT, np.arange(36), (32, 32))
    wanted = np.arange(36) % 9 * 20 + np.arange(36) // 9
    assert np.abs(frames.mean(axis=(1, 2, 3)) - wanted).max() < 2
    every_third = read_frames(info, rows, FRONT, np.arange(0, 36, 3), (32, 32))
    assert np.array_equal(every_third, frames[::3])


SECOND = "data/chunk-000/file-001.parquet"
INFO = "meta/info.json"


def edit_rows(name: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        pq.write_table(change(pq.read_table(folder / name)), folder / name)

    return spoil


def set_column(column: str, values: Callable[[list], list], kind: pa.DataType | None = None) -> Callable[[Path], None]:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(column)
        new = pa.array(values(table.column(column).to_pylist()), kind or table.schema.field(column).type)
        return table.set_column(place, column, new)

    return edit_rows(SECOND, change)


def at(row: int, value: object) -> Callable[[list], list]:
    return lambda values: [value if index == row else old for index, old in enumerate(values)]


def edit_info(**values: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        info = json.loads((folder / INFO).read_text())
        (folder / INFO).write_text(json.dumps({**info, **values}))

    return spoil


def no_text(table: pa.Table) -> pa.Table:
    """The tasks with a byte that is no UTF-8."""
    text = next(name for name in table.column_names if pa.types.is_string(table.schema.field(name).type))
    texts = pa.array([b"reach \xd4+"] * len(table), pa.binary()).view(pa.string())
    return table.set_column(table.column_names.index(text), text, texts)


def cut(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3])

    return spoil


VIDEO = f"videos/{FRONT}/chunk-000/file-001.mp4"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing there": (shutil.rmtree, "no meta/info.json there"),
    "no dataset": (lambda folder: (folder / INFO).write_text("{"), r"info\.json: is not JSON"),
    "older format": (edit_info(codebase_version="v2.1"), r"info\.json: version v2\.1"),
    "empty": (edit_info(total_episodes=0, total_frames=0), r"info\.json: the dataset is empty"),
    "no rate": (edit_info(fps=0), "fps must be a number from 0.01 to 1000, not 0"),
    "wrong fps": (
        edit_info(fps=15),
        r"file-000\.parquet, row 1 \(episode 0, frame 1\): timestamp 0\.1000 s, but at 15",
    ),
    "missing column": (
        edit_rows(SECOND, lambda table: table.drop_columns(["action"])),
        r"file-001\.parquet: no column 'action'",
    ),
    "missing index": (
        edit_rows(SECOND, lambda table: table.drop_columns(["task_index"])),
        r"file-001\.parquet: no column 'task_index'",
    ),
    "not a number": (
        set_column("action", at(4, [0.0, float("nan")])),
        r"file-001\.parquet, row 4 \(episode 2, frame 4\): action\[b\] is nan",
    ),
    "infinite": (set_column("observation.state", at(9, [float("inf"), 0.0])), r"row 9 \(episode 3, frame 0\)"),
    "empty cell": (set_column("action", at(3, None)), r"file-001\.parquet, row 3: action is empty"),
    "wrong width": (
        set_column("action", at(5, [0.0]), pa.list_(pa.float32())),
        r"file-001\.parquet, row 5: action has 1 values, info\.json says 2",
    ),
    "scalar": (set_column("action", lambda rows: [0.0] * 18, pa.float32()), "action has 1 value, info.json says 2"),
    "text": (set_column("action", lambda rows: ["x"] * 18, pa.string()), "action"),
    "episode gap": (
        set_column("episode_index", lambda rows: [5 if row == 3 else row for row in rows]),
        r"file-001\.parquet, row 9 \(episode 5, frame 0\): episode_index is 5, 3 should come next",
    ),
    "frame lost": (
        edit_rows(SECOND, lambda table: pa.concat_tables([table.slice(0, 2), table.slice(3)])),
        r"file-001\.parquet, row 2 \(episode 2, frame 3\): frame_index is 3, 2 should come next",
    ),
    "end lost": (edit_rows(SECOND, lambda table: table.slice(0, 17)), "says 36 frames, the episodes add up to 36, the"),
    "episode not described": (
        edit_rows("meta/episodes/chunk-000/file-001.parquet", lambda table: table.slice(1)),
        r"meta/episodes/chunk-000/file-001\.parquet, row 0: episode 3 where 2 should be",
    ),
    "unknown task": (set_column("task_index", at(7, 4)), r"row 7 \(episode 2, frame 7\): task_index 4; .*has 0 to 0"),
    "file lost": (lambda folder: (folder / SECOND).unlink(), r"file-001\.parquet: missing"),
    "file cut": (cut(SECOND), r"file-001\.parquet: cannot be read, it is cut short or damaged"),
    "tasks cut": (cut("meta/tasks.parquet"), r"tasks\.parquet: cannot be read"),
    "tasks that are no text": (edit_rows("meta/tasks.parquet", no_text), r"tasks\.parquet: cannot be read"),
    "video lost": (lambda folder: (folder / VIDEO).unlink(), r"file-001\.mp4: missing"),
    "video cut": (cut(VIDEO), r"file-001\.mp4: cannot be decoded after frame -1"),
    "video too short": (
        lambda folder: (
            shutil.copy(folder / VIDEO, folder / VIDEO.replace("001", "000"))
            and edit_rows("meta/episodes/chunk-000/file-001.parquet", longer_video)(folder)
        ),
        r"file-001\.mp4: ends at frame 17, and frame 18 is wanted",
    ),
}


EPISODES = "meta/episodes/chunk-000/file-001.parquet"
TEMPLATES = {
    "../../etc/{chunk_index}": "leads out of the dataset",
    "/etc/passwd": "leads out of the dataset",
    "data/{chunk_index}/../../../x": "leads out of the dataset",
    "data//x.parquet": "leads out of the dataset",
    "": "leads out of the dataset",
    "{chunk_index:>20000000000}": "is no path of",
    "data/{foo}.parquet": "is no path of",
    "data/{": "is no path of",
    "data/{0}": "is no path of",
    "data/{chunk_index.__class__}": "is no path of",
    "data/{chunk_index!r}": "is no path of",
    "data/\x1b[2J{chunk_index}": "must be text of 0 to 256 printable characters",
    "d" * 5000: "must be text of 0 to 256 printable characters",
}


@pytest.mark.parametrize("name", ["data_path", "video_path"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_places_of_files_are_matched_and_stay_inside(dataset: Path, name: str, template: str) -> None:
    edit_info(**{name: template})(dataset)
    with pytest.raises(DatasetError, match=TEMPLATES[template]) as caught:
        read(dataset)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


def test_a_camera_s_name_leads_nowhere_else(dataset: Path) -> None:
    info = json.loads((dataset / INFO).read_text())
    info["features"]["../../../outside"] = info["features"][FRONT]
    (dataset / INFO).write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        read_info(dataset)


def edit_episodes(column: str, value: object) -> Callable[[Path], None]:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(column)
        return table.set_column(place, column, pa.array([value, value]))

    return edit_rows(EPISODES, change)


@pytest.mark.parametrize(
    "column",
    [
        *("length", "data/chunk_index", "data/file_index"),
        *(f"videos/{FRONT}/{what}" for what in ("chunk_index", "file_index", "from_timestamp")),
    ],
)
@pytest.mark.parametrize("value", [None, -1, 10**12, 2**62, float("nan"), float("inf"), "0", [0]])
def test_what_stands_of_an_episode_is_not_believed(dataset: Path, column: str, value: object) -> None:
    edit_episodes(column, value)(dataset)
    with pytest.raises(DatasetError):
        read(dataset)


def constant(kind: pa.DataType, value: object, rows: int) -> pa.Table:
    return pa.table({"a": pa.array([value], kind).take(pa.array(np.zeros(rows, np.int8)))})


@pytest.mark.parametrize(
    ("kind", "value", "rows", "compression", "dictionary"),
    [
        (pa.int64(), 7, 10_000_000, "snappy", True),
        (pa.string(), "x" * 100_000, 1500, "none", True),
        (pa.string(), "x" * 100_000, 1500, "zstd", False),
        (pa.list_(pa.float64()), [0.0] * 10_000, 2000, "none", True),
        (pa.list_(pa.float64()), [0.0] * 10_000, 2000, "zstd", False),
    ],
)
def test_a_small_file_does_not_unpack_to_a_large_one(
    tmp_path: Path, kind: pa.DataType, value: object, rows: int, compression: str, dictionary: bool
) -> None:
    path = tmp_path / "bomb.parquet"
    table = constant(kind, value, rows)
    pq.write_table(table, path, compression=compression, use_dictionary=dictionary)
    assert path.stat().st_size * 64 + (64 << 20) < table.nbytes
    before = pa.total_allocated_bytes()
    del table
    pool, most = pa.default_memory_pool(), pa.default_memory_pool().max_memory()
    with pytest.raises(DatasetError, match="unpacks to"):
        read_parquet(path)
    assert pool.max_memory() == most and pa.total_allocated_bytes() <= before


@pytest.mark.parametrize("name", [INFO, SECOND, EPISODES, "meta/tasks.parquet", VIDEO])
def test_a_pointer_of_git_lfs_is_named(dataset: Path, name: str) -> None:
    (dataset / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(DatasetError, match=r"is a pointer of Git LFS, .*: fetch it with git lfs pull"):
        read(dataset)


def longer_video(table: pa.Table) -> pa.Table:
    """The last episode begins a second later in its video, as if more had been recorded than is there."""
    name = f"videos/{FRONT}/from_timestamp"
    begins = [0.0, 1.0]
    return table.set_column(table.column_names.index(name), name, pa.array(begins))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_dataset_is_refused_with_its_place(dataset: Path, kind: str) -> None:
    spoil, message = BROKEN[kind]
    read(dataset)
    spoil(dataset)
    with pytest.raises(DatasetError, match=message):
        read(dataset)


def test_a_broken_image_is_refused_with_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(GOLDEN, folder)
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    images = table.column(WRIST).to_pylist()
    images[30]["bytes"] = images[30]["bytes"][:90]
    place = table.column_names.index(WRIST)
    pq.write_table(table.set_column(place, WRIST, pa.array(images, table.schema.field(WRIST).type)), path)
    info = read_info(folder)
    with pytest.raises(DatasetError, match=r"file-000\.parquet, row 30 \(episode 1, frame 6\): the image cannot be"):
        read_frames(info, read_rows(info, COLUMNS), WRIST, np.arange(72), (48, 48))
