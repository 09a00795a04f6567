"""`python bound.py COMMAND …`: a command that does not outlive the process that wants it, even one that is killed.

Standard input is a pipe whose other end that process holds. An engine reads no such pipe, and the kernel's signal at a
parent's death (`PR_SET_PDEATHSIG`) reaches neither what the engine has started, for vLLM what holds the GPU, nor macOS.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command; end it, with all of this session, when standard input ends. Return its exit code."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    # Whoever asks this group to end waits for this process, which waits for the command. After its start: it would
    # ignore the signal, too.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_input, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _end_with_input() -> None:
    # No `sys.stdin`: at exit the interpreter would want its lock, which this thread holds.
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
