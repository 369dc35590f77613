"""A run in which one rank stops moving or dies while step 2 is fitted, for test_resume.py.

torchrun tests/lost_rank.py RANK hangs|dies FLAGS OF train.py …
"""

import os
import signal
import sys
import time

import train

fit_critics = train.fit_critics


def lose(critics, optimizers, rollout, targets_MBT, shards_MB, args, step, world):
    if step == 2 and os.environ["RANK"] == sys.argv[1]:
        if sys.argv[2] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # else torchrun takes half a minute to end it
        time.sleep(600)
    return fit_critics(critics, optimizers, rollout, targets_MBT, shards_MB, args, step, world)


train.fit_critics = lose
sys.exit(train.main(sys.argv[3:]))
