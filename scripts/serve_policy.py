"""Answer robots over the network: `python scripts/serve_policy.py checkpoint=DIR port=8000`. Ctrl-C or SIGTERM ends it.

`shortcut_policy.realtime.server` says what may be asked; `PolicyClient` asks, and so does openpi's client.
"""

import asyncio
import logging
import signal
from typing import Any

from hydra_command import command

from shortcut_policy.config import from_mapping
from shortcut_policy.policy import Policy
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.realtime.server import PolicyServer
from shortcut_policy.realtime.server_config import ServerConfig
from shortcut_policy.training.distributed import join_processes


async def serve_until_signal(server: PolicyServer) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is being worked on and stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server:
        host = f"[{server.config.host}]" if ":" in server.config.host else server.config.host
        print(f"listening on ws://{host}:{server.port}", flush=True)
        await stop.wait()
        print("stopping", flush=True)


@command("serve_policy")
def main(values: dict[str, Any]) -> None:
    """Load the checkpoint and serve it."""
    checkpoint, device, noise_scale = (values.pop(name) for name in ("checkpoint", "device", "noise_scale"))
    config = from_mapping(ServerConfig, values)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("shortcut_policy").setLevel(logging.INFO)
    with join_processes(device) as processes:
        policy = Policy.from_pretrained(find_checkpoint(checkpoint), processes.device, noise_scale=noise_scale)
    asyncio.run(serve_until_signal(PolicyServer(policy, config)))


if __name__ == "__main__":
    main()
