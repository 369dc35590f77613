"""A run in which one rank hangs or dies while step 2 is fitted, for test_resume.py. Gloo waits 12 seconds.

torchrun tests/lost_rank.py RANK hangs|dies FLAGS OF train.py …
"""

import os
import signal
import sys
import time
from datetime import timedelta

import train
from engine import distributed

distributed.TIMEOUT = timedelta(seconds=12)
train_step = train.train_step
fit_critics = train.fit_critics
running = []


def remember(run, step):
    running.append(step)
    return train_step(run, step)


def lose(*args):
    if running[-1] == 2 and os.environ["RANK"] == sys.argv[1]:
        if sys.argv[2] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # else torchrun takes half a minute to end it
        time.sleep(600)
    return fit_critics(*args)


train.train_step, train.fit_critics = remember, lose
sys.exit(train.main(sys.argv[3:]))
