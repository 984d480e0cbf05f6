"""What a client of a real data set costs: dealing rows to clients, and the start of a client of CUB-200-2011 and of COCO.

``python -m benchmarks.real_data`` writes data sets with the layout and the numbers of CUB-200-2011 (224 pixels) and of COCO
2017 (64 pixels, 123,287 images, 860,000 annotations) and synthetic content into a temporary folder (5 GB free are needed),
decodes each once, and then starts clients, each in a process of its own. A start is ``load_client``, after all imports;
private memory is the growth of RssAnon of /proc/self/status, the best of three processes for the times and the worst for the
memory. On a machine that does other things too, the seconds of CPU are the ones to read.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from config import Data

NUM_CLASSES: Final = 200
PER_CLASS: Final = 60
WORDS: Final = [
    "this",
    "bird",
    "has",
    "a",
    "small",
    "yellow",
    "beak",
    "and",
    "long",
    "dark",
    "wings",
    "with",
    "white",
    "bars",
    "on",
    "its",
    "brown",
    "breast",
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", default="", help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", default="", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("partition", "cub", "coco"), help="leave the others out")
    options = parser.parse_args()
    if options.start:
        start_clients(Path(options.data_dir), [int(client) for client in options.start.split(",")])
        return
    if options.only in (None, "partition"):
        for name, seconds in partition_seconds().items():
            tell(f"10,000 rows to 100 clients, {name:12} {seconds:.2f} s")
    for name, write, number in (("cub", write_cub, 54), ("coco", write_coco, 30)):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                measure(Path(folder), name, write, number)


def measure(folder: Path, name: str, write: Callable[[Path], None], number: int) -> None:
    """Write a data set, and print what the first and later starts of its clients cost."""
    os.environ["BACKPACK_CACHE"] = str(folder / "cache")
    write(folder / name)
    settled = time.time() - 60  # a tree that has just changed is looked at as a whole
    for path in [folder / name, *(folder / name).rglob("*")]:
        if path.is_dir():
            os.utime(path, (settled, settled))
    first = in_a_process(folder / name, f"{number // 2}")
    tell(f"{name}: first text client of all, lists all rows: {first['seconds']:.1f} s ({first['cpu']:.1f} s of CPU)")
    first = in_a_process(folder / name, "0")
    tell(f"{name}: first image client, decodes all images: {first['seconds']:.1f} s ({first['cpu']:.1f} s of CPU)")
    for kind, clients in (
        ("one image client", f"{number // 4}"),
        ("one text client", f"{number - number // 4}"),
        (f"one of all {number}", ",".join(map(str, range(number)))),
    ):
        found = [in_a_process(folder / name, clients) for _ in range(3)]
        seconds, cpu = (min(one[key] for one in found) for key in ("seconds", "cpu"))
        private = max(one["private"] for one in found)
        tell(f"{name}: warm start of {kind:18} {seconds:.3f} s ({cpu:.3f} s of CPU), {private:.1f} MB private")


def partition_seconds() -> dict[str, float]:
    """Return the seconds that each partitioner takes for 10,000 rows of 10 classes and 100 devices, imports apart."""
    from data_partition.devices import deal

    rng = np.random.default_rng(0)
    labels = [f"class {label}" for label in rng.integers(0, 10, 10_000)]
    domains = [f"domain {domain:03d}" for domain in rng.integers(0, 100, 10_000)]
    kinds = {
        kind: Data(dataset="hf", grouping="own", partitioner=kind, devices_per_group=100)
        for kind in ("iid", "dirichlet", "pathological", "domain")
    }
    deal(kinds["iid"], labels, domains)
    return {kind: timed(lambda data=data: deal(data, labels, domains)) for kind, data in kinds.items()}  # type: ignore[misc]


def write_cub(root: Path) -> None:
    """Write 200 species with 60 images and captions each, under the names of the groups where they have one."""
    from data_partition.group_tables import class_groups

    known = {int(name[:3]): name for classes in class_groups("cub").values() for name in classes}
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (375 // 5, 500 // 5, 3), dtype=np.uint8)).resize((500, 375)).save(buffer, "JPEG")
    lines = []
    for number in range(1, NUM_CLASSES + 1):
        name = known.get(number, f"{number:03d}.Other_Bird")
        images, captions = root / "CUB_200_2011" / "images" / name, root / "cvpr2016_cub" / "text_c10" / name
        images.mkdir(parents=True)
        captions.mkdir(parents=True)
        for index in range(PER_CLASS):
            stem = f"{name[4:]}_{index:04d}_{1000 * number + index}"
            (images / f"{stem}.jpg").write_bytes(buffer.getvalue())
            text = "\n".join(" ".join(rng.permutation(WORDS)[:14]) for _ in range(10))
            (captions / f"{stem}.txt").write_text(text, encoding="utf-8")
            lines.append((f"{name}/{stem}.jpg", number))
    for file, place in (("images.txt", 0), ("image_class_labels.txt", 1)):
        text = "".join(f"{index} {line[place]}\n" for index, line in enumerate(lines, start=1))
        (root / "CUB_200_2011" / file).write_text(text, encoding="utf-8")


def write_coco(root: Path) -> None:
    """Write the files of COCO 2017: seven objects an image, of all 80 categories in turn, and five captions."""
    from data_partition.group_tables import class_groups

    used = [name for classes in class_groups("coco").values() for name in classes]
    names = (*used, *(f"other {index}" for index in range(20)))
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(WORDS)[:10]) for _ in range(5_000)]
    outline = [[round(value, 2) for value in rng.uniform(0, 600, 60).tolist()]]
    (root / "annotations").mkdir(parents=True)
    first = 0
    for split, number in (("train2017", 118_287), ("val2017", 5_000)):
        (root / split).mkdir()
        files = {first + index: f"{first + index:012d}.jpg" for index in range(number)}
        first += number
        for place, name in enumerate(files.values()):
            if place % 30_000 == 0:  # a file has only so many names
                source = root / split / name
                Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(source, "JPEG")
            else:
                (root / split / name).hardlink_to(source)
        images = [{"id": image, "file_name": name, "height": 480, "width": 640} for image, name in files.items()]
        objects = [
            {"segmentation": outline, "area": 1.5, "iscrowd": 0, "image_id": image, "bbox": [1, 2, 3, 4]}
            | {"category_id": (image + place) % 80 + 1, "id": 10 * image + place}
            for image in files
            for place in range(7)
        ]
        captions = [
            {"image_id": image, "id": 10 * image + place, "caption": texts[(7 * image + place) % len(texts)]}
            for image in files
            for place in range(5)
        ]
        for kind, rows in (("instances", objects), ("captions", captions)):
            told = {"info": {}, "images": images, "annotations": rows, "categories": categories}
            (root / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(told), encoding="utf-8")


def in_a_process(folder: Path, clients: str) -> dict[str, float]:
    """Start clients in a fresh process; return seconds of one and megabytes of private memory of all."""
    words = [sys.executable, "-m", "benchmarks.real_data", "--start", clients, "--data-dir", str(folder)]
    found: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return found


def start_clients(data_dir: Path, clients: list[int]) -> None:
    """Load clients, read a batch of the first, and print what it cost; the batch counts for neither."""
    from data_partition import listed  # noqa: F401  # imported here, so that it does not count
    from data_partition.client_data import ClientData, load_client

    dataset: Literal["cub", "coco"] = "cub" if data_dir.name == "cub" else "coco"
    data = Data(dataset=dataset, grouping="seed", data_dir=str(data_dir), train_fraction=1.0, max_tokens=128)
    before, cpu = private_bytes(), time.process_time()
    loaded: list[ClientData] = []
    seconds = timed(lambda: loaded.extend(load_client(data, client) for client in clients)) / len(clients)
    cpu = (time.process_time() - cpu) / len(clients)
    private = private_bytes() - before
    expected = 5 * PER_CLASS if dataset == "cub" else 4 * 1200
    assert all(len(one.train) + len(one.val) + len(one.test) >= expected for one in loaded)
    assert len(loaded[0].train.inputs[:32]) == 32
    tell(json.dumps({"seconds": seconds, "cpu": cpu, "private": private / 1e6}))


def private_bytes() -> int:
    """Return the memory that this process shares with nobody and no file."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def timed(step: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
