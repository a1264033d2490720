"""The client: against our server, against one that behaves as openpi's, and without torch."""

import runpy
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from serving import LIMIT_S, observation, packed, serving, unpacked
from websockets.sync.server import serve

from shortcut_policy.realtime.client import PolicyClient, PolicyServerError

ROOT = Path(__file__).parents[2]


@contextmanager
def openpi_server(handler):
    """A server that runs `handler` for every client; its port."""
    with serve(handler, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(LIMIT_S)


def test_infer_and_reset():
    with serving() as server, PolicyClient(port=server.port, timeout=LIMIT_S) as client:
        assert client.metadata == server.metadata
        first = client.infer(observation(1))["actions"]
        assert first.shape == (8, 2)
        assert not np.allclose(client.infer(observation(40))["actions"], first)
        client.reset(seed=0)
        np.testing.assert_array_equal(client.infer(observation(1))["actions"], first)
        with pytest.raises(PolicyServerError, match="'angle' is missing"):
            client.infer({"position": np.zeros(2)})
        with pytest.raises(ValueError, match="cannot be sent"):
            client.infer(observation(angle=np.array([object()])))
        client.reset()
        assert client.infer(observation(1))["actions"].shape == (8, 2)
        client.close()
        with pytest.raises(ConnectionError, match="closed"):
            client.infer(observation(1))


def test_no_server_and_a_wrong_token():
    with serving(token="right") as server:
        for token in (None, "wrong"):
            with pytest.raises(ConnectionError, match="401"):
                PolicyClient("127.0.0.1", server.port, token, timeout=LIMIT_S)
        with PolicyClient("127.0.0.1", server.port, "right", timeout=LIMIT_S) as client:
            assert client.metadata["horizon"] == 8
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{server.port}"):
        PolicyClient("127.0.0.1", server.port, timeout=LIMIT_S)


def test_an_openpi_server_is_understood_and_not_reset():
    asked = []

    def handler(wire):
        wire.send(packed({"robot": "droid"}))
        for message in wire:
            asked.append(unpacked(message))
            if len(asked) == 2:
                wire.send("Traceback ...")
            else:
                wire.send(packed({"actions": 2 * asked[-1]["state"], "server_timing": {"infer_ms": 1.0}}))

    with openpi_server(handler) as port, PolicyClient("ws://127.0.0.1", port, timeout=LIMIT_S) as client:
        assert client.metadata == {"robot": "droid"}
        client.reset()
        state = np.arange(6.0).reshape(2, 3)
        answer = client.infer({"state": state, "prompt": "push"})
        np.testing.assert_array_equal(answer["actions"], 2 * state)
        assert answer["server_timing"] == {"infer_ms": 1.0}
        with pytest.raises(PolicyServerError, match="Traceback"):
            client.infer({"state": state})
    assert len(asked) == 2
    assert asked[0]["prompt"] == "push"


def test_a_late_answer_never_passes_for_the_next_one():
    late = threading.Event()

    def handler(wire):
        wire.send(packed({}))
        wire.recv()
        late.wait(LIMIT_S)
        wire.send(packed({"actions": np.zeros(1)}))

    with openpi_server(handler) as port, PolicyClient(port=port, timeout=1.0) as client:
        with pytest.raises(TimeoutError, match=r"1\.0 s"):
            client.infer({})
        late.set()
        with pytest.raises(ConnectionError):
            client.infer({})


@pytest.mark.parametrize(
    ("module", "missing"), [("wire", "msgpack"), ("client", "websockets"), ("server", "websockets")]
)
def test_a_missing_package_says_which_extra_installs_it(monkeypatch, module, missing):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"\.\[server\]"):
        runpy.run_path(str(ROOT / f"shortcut_policy/realtime/{module}.py"))


def test_the_robot_needs_no_torch():
    program = """
import sys
sys.modules["torch"] = None  # importing it now fails
import numpy as np
from shortcut_policy.realtime.client import PolicyClient
with PolicyClient(port=int(sys.argv[1]), timeout=60) as client:
    print(client.infer({"position": np.zeros(2), "angle": np.zeros(1)})["actions"].shape)
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
print(*sorted(loaded & {"torch", "msgpack", "websockets", "numpy", "gymnasium", "h5py", "zarr", "hydra"}))
"""
    with serving() as server:
        words = [sys.executable, "-c", program, str(server.port)]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert run.stdout.splitlines() == ["(8, 2)", "msgpack numpy websockets"], run.stderr
