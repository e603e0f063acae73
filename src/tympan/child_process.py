"""What the child processes of a server do at their start.

Only their parent ends them. After a signal to the server, streams receive their last words, so child processes must
outlive the signal, which Ctrl-C sends to the process group and systemd to every process of a service.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def ignore_stop_signals() -> None:
    """Ignore the signals that stop a server."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def end_with_parent() -> None:
    """On Linux, have the kernel kill this process when the thread that started it ends.

    The end of a pipe is not sufficient: a process that hangs or is stopped does not read it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
