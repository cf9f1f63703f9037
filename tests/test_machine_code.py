"""Compiled functions are cached per state of the sources, and nothing breaks where they can't be cached."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mesaprobe.machine_code import cache_folder


def test_the_folder_follows_the_sources_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mesaprobe.machine_code as module

    package = tmp_path / "package"
    (package / "solvers").mkdir(parents=True)
    (package / "labels").mkdir()
    source = package / "solvers" / "kernel.py"
    source.write_text("x = 1")
    monkeypatch.setattr(module, "__file__", str(package / "machine_code.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = cache_folder()
    assert first is not None
    assert first.is_dir()
    assert cache_folder() == first
    month_ago = time.time() - 30 * 24 * 3600
    os.utime(first, (month_ago, month_ago))
    source.write_text("x = 2")
    second = cache_folder()
    assert second is not None
    assert second != first
    assert not first.exists()


def test_without_a_writable_home_the_package_still_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "file"), "HOME": str(tmp_path / "file")}
    code = "import mesaprobe, os; assert 'NUMBA_CACHE_DIR' not in os.environ; import mesaprobe.solvers.exact.held_karp"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
