"""Training killed with SIGKILL at seeded moments, some inside a checkpoint write, resumes to the same weights.

A driver in a process of its own imports torch once and forks a child per attempt, so that twenty kills are cheap.
An environment variable marks every process that comes of it, so that orphaned labelling workers would be found.
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import FINISHED, changed, history_of

from mesaprobe.files import write_json

CONFIG = changed(steps=40, evaluate_every=8)
WRITES = CONFIG.steps // CONFIG.evaluate_every + 1
"""Safetensors files that a run writes: its checkpoints, then the final weights."""
MARK = "MESAPROBE_TEST_FAMILY"

DRIVER = '''
import dataclasses, json, os, signal, sys, time
from pathlib import Path

MARK = "MESAPROBE_TEST_FAMILY"


def main(root, cases):
    import torch
    import torch._dynamo  # what the first optimiser step would import in every child

    torch.set_num_threads(1)
    from safetensors.torch import save
    from mesaprobe.models import checkpoint
    from mesaprobe.training import loop
    from mesaprobe.training.config import read_train_config

    config = read_train_config(root / "config.json")

    def configured(workers):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))

    def train(folder, workers, resume, begun, torn_write=None, share=0.0):
        """Train; say on `begun` when the loop begins and when all is done. Dies inside the write `torn_write`."""
        run, save_file, writes = loop._run, checkpoint.save_file, 0

        def announced(*arguments):
            os.write(begun, b"b")
            run(*arguments)

        def torn(tensors, path, metadata):
            nonlocal writes
            writes += 1
            if writes == torn_write:
                data = save(tensors, metadata)
                Path(path).write_bytes(data[: int(share * len(data))])
                os.kill(os.getpid(), signal.SIGKILL)
            save_file(tensors, path, metadata)

        loop._run, checkpoint.save_file = announced, torn
        loop.train(configured(workers), folder, resume=resume)
        os.write(begun, b"e")

    def child(*arguments, linger=False, **keywords):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                train(*arguments, writing, **keywords)
                code = 0
                if linger:
                    time.sleep(600)  # so that a kill that comes late finds somebody
            finally:
                os._exit(code)
        os.close(writing)
        return pid, reading

    def ended(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def broken(folder):
        found = []
        for path in folder.iterdir():
            try:
                if path.suffix == ".safetensors":
                    checkpoint.load_tensors(path)
                elif path.suffix == ".json":
                    json.loads(path.read_text())
                elif path.suffix == ".jsonl":
                    [json.loads(line) for line in path.read_text().splitlines()]
            except Exception as error:
                found.append(f"{path.name}: {error}")
        return found

    def orphans(patience=30.0):
        """Processes marked as ours, other than this one, that are still there after `patience` seconds."""
        end = time.monotonic() + patience
        while True:
            others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
            left = [pid for pid in others if marked(pid)]
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.05)

    def marked(pid):
        try:
            return os.environ[MARK].encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    durations = {}
    for workers in sorted({case["workers"] for case in cases} | {0}):
        pid, reading = child(root / f"whole{workers}", workers, False)
        os.read(reading, 1)
        started = time.monotonic()
        os.read(reading, 1)
        durations[workers] = time.monotonic() - started
        assert ended(pid) == 0

    for index, case in enumerate(cases):
        folder, workers, share = root / f"case{index}", case["workers"], case["share"]
        pid, reading = child(folder, workers, False, linger=True, torn_write=case["write"], share=share)
        os.read(reading, 1)
        if case["write"] is None:
            time.sleep(share * durations[workers])
            os.kill(pid, signal.SIGKILL)
        result = {"exit": ended(pid), "broken": broken(folder), "orphans": orphans()}
        result["partial"] = len(list(folder.glob(".*.partial")))
        state = folder / loop.CHECKPOINT_FILE
        result["step"] = int(checkpoint.load_tensors(state)[1]["step"]) if state.exists() else 0
        pid, _ = child(folder, workers, True)
        result |= {"resumed": ended(pid), "orphans": result["orphans"] + orphans()}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":  # labelling workers import this file too, and must not import torch
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
'''


def kill_and_resume(root: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the driver; per case what the kill left behind. `share` is how far into the run or the write it comes."""
    (root / "driver.py").write_text(DRIVER)
    write_json(root / "config.json", CONFIG)
    environment = {**os.environ, MARK: uuid.uuid4().hex, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "driver.py"), str(root), json.dumps(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(root: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    results = kill_and_resume(root, cases)
    assert len(results) == len(cases)
    whole = contents(root / "whole0")
    assert set(whole) == FINISHED
    for index, (case, result) in enumerate(zip(cases, results, strict=True)):
        assert (result["exit"], result["resumed"]) == (-9, 0), (case, result)
        assert (result["broken"], result["orphans"]) == ([], []), (case, result)
        if case["write"] is not None:
            assert result["partial"] == 1, "it must have died with half a file beside the whole ones"
        resumed = contents(root / f"case{index}")
        assert set(resumed) == FINISHED, (case, result)
        for name in ("model.safetensors", "metrics.json", "history.jsonl"):
            assert resumed[name] == whole[name], (name, case, result)
    return results


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a run by name; the history without its seconds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"history.jsonl": history_of(folder)}


def at_moment(share: float, workers: int = 0) -> dict[str, Any]:
    return {"write": None, "share": share, "workers": workers}


def in_write(number: int, share: float, workers: int = 0) -> dict[str, Any]:
    return {"write": number, "share": share, "workers": workers}


pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="orphans are looked for in /proc")


def test_killed_twice_a_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    results = check(tmp_path, [at_moment(0.6, workers=1), in_write(3, 0.5)])
    assert results[1]["step"] == 2 * CONFIG.evaluate_every


@pytest.mark.slow
def test_killed_at_twenty_moments_a_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(20)
    moments = [at_moment(float(share), workers=int(i % 3 == 0)) for i, share in enumerate(rng.uniform(0, 1, size=15))]
    writes = [
        in_write(int(number), float(share), workers=int(i == 0))
        for i, (number, share) in enumerate(
            zip(rng.permutation(WRITES)[:5] + 1, rng.uniform(0, 1, size=5), strict=True)
        )
    ]
    results = check(tmp_path, moments + writes)
    assert len({result["step"] for result in results[:15]}) >= 3, "the moments must fall between different checkpoints"
