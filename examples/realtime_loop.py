"""Drive Push-T at 10 Hz while the policy samples beside: `python examples/realtime_loop.py CHECKPOINT SECONDS`."""

import sys

import envs
from shortcut_policy import Policy
from shortcut_policy.realtime.control_loop import ControlLoop, LoopConfig
from shortcut_policy.realtime.gym_robot import GymRobot
from shortcut_policy.realtime.sampling import chunk_function

policy = Policy.from_pretrained(sys.argv[1])
robot = GymRobot(envs.make("pusht"), seed=100_000)  # or an object of yours with observe() and act(action)
config = LoopConfig.for_policy(policy.config, rate_hz=10, low=(0, 0), high=(512, 512))
loop = ControlLoop(robot, chunk_function(policy, num_steps=1), config)
print(loop.run(ticks=int(10 * float(sys.argv[2])), stop=robot.ended))
print(f"score    {robot.max_reward:.2f}")
