"""How much `altdiffusion score` reads, and how long its model waits for slow storage.

Captioned pictures are in tars, in Parquet and in separate files, on a file system that counts bytes and requests. The
first lines compare the bytes read with the bytes stored. Then tars are read from storage with a given latency and
bandwidth: the lines report the share of time that the vision tower is idle, and peak memory compared with a tenth of
the rows. The model is emoji-m18, and the pictures are its held-out ones.

    python benchmarks/score_sources.py [--rows 20000] [--milliseconds 80] [--megabytes 50]
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile
from report import machine, report_at_most

from altdiffusion_clip.bulk.scoring import Job, score_sources
from altdiffusion_clip.bulk.shards import ShardFolder
from altdiffusion_clip.evaluation.datasets.names import read_dataset
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.judges.pictures import Workers
from altdiffusion_clip.sources.rows import Source

MIB = 1 << 20
SHARD = 2000


class Store(LocalFileSystem):
    """`store:///path`: local files read by counted range requests, with optional delays."""

    protocol = "store"
    cachable = False
    block_size, seconds, bytes_a_second = 5 * MIB, 0.0, 0.0
    bytes = requests = 0
    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        plain = [str(one).removeprefix("store://") for one in ([path] if not isinstance(path, list) else path)]
        return super()._strip_protocol(plain if isinstance(path, list) else plain[0])

    def unstrip_protocol(self, name: str) -> str:
        return f"store://{name}"

    def fetch(self, path: str, start: int, end: int | None) -> bytes:
        with Path(path).open("rb") as file:
            file.seek(start)
            data = file.read(-1 if end is None else end - start)
        with self._lock:
            type(self).bytes += len(data)
            type(self).requests += 1
        if self.seconds:
            time.sleep(self.seconds + len(data) / self.bytes_a_second)
        return data

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return self.fetch(self._strip_protocol(path), start or 0, end)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> "StoredFile":
        return StoredFile(self, path, mode, block_size or self.block_size, **kwargs)


class StoredFile(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.fetch(self.path, start, end)


fsspec.register_implementation("store", Store, clobber=True)


def write_tars(folder: Path, rows: int, each: int = 2000) -> list[str]:
    """Writes tars."""
    pictures = [picture.read() for picture in read_dataset("emoji", languages=["en"]).images]
    places = []
    for first in range(0, rows, each):
        path = folder / f"{first:08d}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(first, min(rows, first + each)):
                # All pictures differ, because equal ones are encoded only once.
                data = pictures[number % len(pictures)] + number.to_bytes(8, "big")
                for ending, content in (("png", data), ("txt", f"a cat {number % 50}".encode())):
                    info = tarfile.TarInfo(f"{number:08d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        places.append(f"store://{path}")
    return places


def write_parquet(folder: Path, rows: int) -> str:
    import pyarrow
    import pyarrow.parquet

    pictures = [picture.read() for picture in read_dataset("emoji", languages=["en"]).images]
    images = [pictures[number % len(pictures)] + number.to_bytes(8, "big") for number in range(rows)]
    table = [{"image": image, "text": f"a cat {number % 50}"} for number, image in enumerate(images)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), folder / "rows.parquet", row_group_size=500)
    return f"store://{folder / 'rows.parquet'}"


def write_loose(folder: Path, rows: int) -> str:
    pictures = [picture.read() for picture in read_dataset("emoji", languages=["en"]).images]
    (folder / "loose").mkdir()
    for number in range(rows):
        (folder / "loose" / f"{number:06d}.png").write_bytes(pictures[number % len(pictures)])
        (folder / "loose" / f"{number:06d}.txt").write_text(f"a cat {number % 50}")
    return f"store://{folder / 'loose'}"


class Watched(Bench):
    """A bench that records how long it computes."""

    busy = 0.0

    def begin_vectors(self, inputs: Any) -> Any:
        started = time.perf_counter()
        begun = super().begin_vectors(inputs)
        type(self).busy += time.perf_counter() - started
        return begun


def score(places: list[str], output: Path) -> float:
    """Seconds since the first picture."""
    bench = Watched(load_panel("emoji-m18"), batch_size=32)
    workers = Workers(bench.preparation())
    folder = ShardFolder(output, {}, dict.fromkeys(places, ""))
    started = time.perf_counter()
    report = score_sources(Job(tuple(Source(place) for place in places), SHARD), folder, [bench], workers)
    workers.close()
    assert report.is_complete, report
    return time.perf_counter() - started


def amplification(kind: str, place: list[str], there: int, block: int, output: Path) -> None:
    Store.bytes = Store.requests = 0
    Store.block_size = block
    score(place, output)
    goal = 1.05 if kind == "loose files" else 1.2
    name = f"score, bytes read of {kind}, blocks of {block // MIB} MiB"
    report_at_most(name, Store.bytes, there, "bytes", goal, requests=Store.requests)


def slow(rows: int, seconds: float, bytes_a_second: float) -> None:
    """Runs in its own process, to measure its peak memory."""
    with tempfile.TemporaryDirectory() as name:
        places = write_tars(Path(name), rows)
        Store.seconds, Store.bytes_a_second, Store.block_size = seconds, bytes_a_second, 5 * MIB
        spent = score(places, Path(name) / "scores")
        # Not from getrusage, which starts at the size of the parent process.
        status = Path("/proc/self/status").read_text()
        peak = 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        print(json.dumps({"seconds": spent, "busy": Watched.busy, "peak": peak, "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--milliseconds", type=float, default=80.0)
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--slow", type=int, help="rows of the slow part alone")
    options = parser.parse_args()
    if options.slow:
        slow(options.slow, options.milliseconds / 1000, options.megabytes * 1e6)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tars = write_tars(folder, options.rows // 2)
        parquet = write_parquet(folder, options.rows // 4)
        loose = write_loose(folder, min(2000, options.rows // 4))
        for block in (5 * MIB, 50 * MIB):
            size = sum(Path(place.removeprefix("store://")).stat().st_size for place in tars)
            amplification("tars", tars, size, block, folder / f"tars-{block}")
            size = (folder / "rows.parquet").stat().st_size
            amplification("Parquet", [parquet], size, block, folder / f"parquet-{block}")
        size = sum(path.stat().st_size for path in (folder / "loose").iterdir())
        amplification("loose files", [loose], size, 5 * MIB, folder / "scores-loose")
    runs = []
    for rows in (options.rows // 10, options.rows):
        command = [sys.executable, __file__, "--slow", str(rows), "--milliseconds", str(options.milliseconds)]
        ran = subprocess.run([*command, "--megabytes", str(options.megabytes)], stdout=subprocess.PIPE, check=True)
        runs.append(json.loads(ran.stdout.splitlines()[-1]))
    few, many = runs
    idle = 1 - many["busy"] / many["seconds"]
    line = {"name": f"score, share of the time that the model waits, {options.rows} rows from a slow store"}
    print(json.dumps({**line, "ours": round(idle, 4), "goal": 0.1, "holds": idle <= 0.1, "machine": machine()}))
    report_at_most("score, peak memory, rows over a tenth", many["peak"], few["peak"], "bytes resident", 1.1)


if __name__ == "__main__":
    main()
