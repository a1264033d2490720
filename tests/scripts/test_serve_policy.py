"""The command: a checkpoint served, asked, and stopped by a signal."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_policy import small_policy

from shortcut_policy.realtime.client import PolicyClient

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0


@pytest.fixture
def checkpoint(tmp_path):
    small_policy(metadata={"task": "toy"}).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_asked_and_stopped_by_ctrl_c(checkpoint):
    words = (f"checkpoint={checkpoint}", "port=0", "device=cpu", "max_batch=2", "num_steps=2")
    with subprocess.Popen(
        [sys.executable, "scripts/serve_policy.py", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on ws://127.0.0.1:"), process.communicate()
            port = int(line.rpartition(":")[2])
            with PolicyClient(port=port, timeout=LIMIT_S) as client:
                assert client.metadata["task"] == "toy"
                assert client.metadata["num_steps"] == 2
                actions = client.infer({"position": np.array([100.0, 200.0]), "angle": np.zeros(1)})["actions"]
                assert actions.shape == (8, 2)
                process.send_signal(signal.SIGINT)
                out, errors = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "stopping" in out
    assert "connected" in errors
    assert "Traceback" not in errors
    assert "warning" not in errors


@pytest.mark.parametrize("token", ["s3cret", None])
def test_the_token_of_the_environment_and_sigterm(checkpoint, run_command, monkeypatch, caplog, token):
    """In this process, which a thread asks and stops."""
    monkeypatch.delenv("SHORTCUT_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("SHORTCUT_TOKEN", token)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def robot():
        for wrong in [None, "wrong"] if token else []:
            with pytest.raises(ConnectionError, match="401"):
                connected(port, wrong)
        with connected(port, token) as client:
            os.kill(os.getpid(), signal.SIGTERM)
            return client.metadata["observation_steps"]

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(robot)
        words = (f"checkpoint={checkpoint}", f"port={port}", "host=0.0.0.0", "device=cpu")
        code, out, errors = run_command("serve_policy", *words)
        assert asked.result() == 2
    assert code == 0, errors
    assert f"listening on ws://0.0.0.0:{port}" in out
    assert ("everybody who reaches 0.0.0.0" in caplog.text) == (token is None)
    assert "s3cret" not in errors + out + caplog.text
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def connected(port, token):
    """A client of the server that another thread is starting."""
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            return PolicyClient(port=port, token=token, timeout=LIMIT_S)
        except ConnectionError as error:
            if "401" in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["checkpoint=nowhere"], "nowhere"),
        ([], "checkpoint"),
        (["checkpoint={checkpoint}", "port=99999"], "99999"),
        (["checkpoint={checkpoint}", "max_batch=0"], "max_batch must be positive, got 0"),
        (["checkpoint={checkpoint}", "host=1.2.3.4"], "cannot listen on 1.2.3.4:8000"),
        (["checkpoint={checkpoint}", "device=tpu9"], "tpu9"),
    ],
)
def test_wrong_values_get_one_sentence(checkpoint, run_command, words, quoted):
    code, _, errors = run_command("serve_policy", *[word.format(checkpoint=checkpoint) for word in words])
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1
