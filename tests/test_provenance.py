"""Where figures come from."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from shortcut_policy import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a copy of the file, committed, and one result."""
    package = tmp_path / "shortcut_policy"
    package.mkdir()
    file = Path(shutil.copy(provenance.__file__, package))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old.json").write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(file))
    return tmp_path, subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout


def test_changed_sources_make_a_commit_dirty_and_new_results_do_not(checkout):
    folder, commit = checkout
    assert provenance.current_commit() == commit.strip()
    (folder / "results" / "old.json").write_text("2")
    (folder / "results" / "new.json").write_text("2")
    assert provenance.current_commit() == commit.strip()
    (folder / "shortcut_policy" / "provenance.py").write_text("changed")
    assert provenance.current_commit() == f"{commit.strip()}-dirty"


def test_there_is_no_commit_outside_git(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "file.py"))
    assert provenance.current_commit() == "unknown"


@pytest.mark.parametrize(
    ("threads", "cores", "words"), [(1, 1, "1 CPU core ("), (2, 2, "2 CPU cores ("), (1, 2, "1 of 2 CPU cores (")]
)
def test_the_hardware_is_said_with_the_threads_that_compute_and_the_cores_that_there_are(
    monkeypatch, threads, cores, words
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert provenance.describe_hardware(torch.device("cpu")).startswith(words)
