"""A run in which one rank stops moving or dies while step 2 is fitted, for test_resume.py.

torchrun tests/lost_rank.py RANK SIGSTOP|SIGKILL FLAGS OF train.py …
"""

import os
import signal
import sys

import train


def lose(*args, real=train.fit_critics):
    if args[-2] == 2 and os.environ["RANK"] == sys.argv[1]:
        os.kill(os.getpid(), signal.Signals[sys.argv[2]])
    return real(*args)


train.fit_critics = lose
sys.exit(train.main(sys.argv[3:]))
