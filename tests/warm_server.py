"""The process that tests/warm.py starts: it imports libraries and the runner once, and forks for each command."""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]


def serve(orders: socket.socket, imported: Sequence[str]) -> Callable[[], object]:
    """Import, then fork for each order; returns in each child its program, and never in the server."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child's own until it can take it
    filters = list(warnings.filters)
    for name in imported:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    import_ours(everything="torch" in sys.modules)
    added = warnings.filters[: len(warnings.filters) - len(filters)]
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "an import has started a thread: forks are not safe"
    freeze()
    orders.send(b"+")
    children: dict[int, tuple[int, int]] = {}  # by the descriptor of a process: its pid, its status pipe
    ready = selectors.DefaultSelector()
    ready.register(orders, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is not orders:
                ready.unregister(key.fileobj)
                _bury(children, key.fd)
                continue
            head, descriptors, _, _ = socket.recv_fds(orders, 4, 4)
            if not head:
                _abandon(children)
            order = json.loads(orders.recv(struct.unpack("i", head)[0], socket.MSG_WAITALL))
            pid = os.fork()
            if pid == 0:
                ready.close()
                orders.close()
                for descriptor, (_, status) in children.items():
                    os.close(descriptor)
                    os.close(status)
                return _child(order, descriptors, filters, added)
            for each in descriptors[:3]:
                os.close(each)
            watched = os.pidfd_open(pid)
            children[watched] = (pid, descriptors[3])
            ready.register(watched, selectors.EVENT_READ)
            orders.send(struct.pack("i", pid))


def import_ours(everything: bool) -> None:
    """Import the runner, and with it what libraries make up when they are first asked: 0.5 s of a command.

    Without `everything` what a plan needs, which imports neither torch nor MLflow.
    """
    import runner
    from runner import backends, methods

    names = [
        "runner.terminal.console",
        "runner.__main__",
        "runner.planning",
        "runner.models.chat.learned_check",
        "runner.data.survey",
    ]
    if everything:
        names += [found.name for found in pkgutil.walk_packages(runner.__path__, "runner.")]
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for package in (methods, backends):
        for found in pkgutil.iter_modules(package.__path__):
            package.load(found.name)
    from hydra.core.override_parser.overrides_parser import OverridesParser

    OverridesParser.create().parse_overrides(["a.b=1e-3,[x]", "c='${d}'"])
    if everything:
        from transformers import conversion_mapping

        conversion_mapping.get_checkpoint_conversion_mapping("llama")


def renew_ours() -> None:
    """Have the console ask this process's streams and variables; forget the runner where another one is found first."""
    places = (Path(folder) for folder in sys.path if (Path(folder) / "runner" / "__init__.py").exists())
    if next(places, ROOT).resolve() == ROOT:
        # The same module with new consoles, which all ask it for by name.
        importlib.reload(sys.modules["runner.terminal.console"])
        return
    for name in [name for name in sys.modules if name.partition(".")[0] in ("runner", "hydra_plugins")]:
        del sys.modules[name]


def freeze() -> None:
    """Keep the collector off what was imported: a page that it touches is copied in each child."""
    gc.collect()
    gc.freeze()


def _bury(children: dict[int, tuple[int, int]], descriptor: int) -> None:
    """Send on how a child ended."""
    pid, status = children.pop(descriptor)
    reported = struct.pack("i", os.waitpid(pid, 0)[1])
    os.close(descriptor)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(status, reported)
    os.close(status)


def _abandon(children: dict[int, tuple[int, int]]) -> None:
    """End with the tests: nothing that they started is left."""
    for pid in [each for child, _ in children.values() for each in (child, *_descendants(child))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    try:
        direct = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [found for each in direct for found in (each, *_descendants(each))]


def _child(order: dict[str, Any], descriptors: list[int], filters: Any, added: Any) -> Callable[[], object]:
    """Become what a fresh interpreter would be; return its program."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: dies with the server
    for number, given in enumerate(descriptors[:3]):
        os.dup2(given, number)
    for each in descriptors:
        os.close(each)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    if order["session"]:
        os.setsid()
    os.chdir(order["folder"])
    environment: dict[str, str] = order["environment"]
    os.environ.clear()
    os.environ.update(environment)
    unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=unbuffered)  # type: ignore[union-attr]
    _warn(environment.get("PYTHONWARNINGS", ""), filters, added)
    _count_threads(environment)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own `random` seeds itself after a fork
    flag, program, *arguments = order["line"]
    sys.orig_argv = [sys.executable, flag, program, *arguments]
    sys.argv = [flag, *arguments]
    sys.path[:1] = [
        str(Path.cwd()) if flag == "-m" else "",
        *filter(None, environment.get("PYTHONPATH", "").split(":")),
    ]
    importlib.invalidate_caches()
    renew_ours()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if flag == "-m":
        # Of a program that is imported already runpy would warn.
        package = hasattr(sys.modules.get(program), "__path__")
        sys.modules.pop(f"{program}.__main__" if package else program, None)
        return lambda: runpy.run_module(program, run_name="__main__", alter_sys=True)
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    return lambda: exec(compile(program, "<string>", "exec"), main.__dict__)


def finish(program: Callable[[], object]) -> NoReturn:
    """Run a program and end as an interpreter ends, but for freeing each object, which would take a second."""
    code, interrupted = 0, False
    try:
        program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    except BaseException as error:
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
        trace = error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120  # the interpreter's own for a stream that is closed
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def _warn(options: str, filters: Any, added: Any) -> None:
    """Filter warnings as PYTHONWARNINGS asks; what the libraries add while they are imported comes before it."""
    warnings.filters[:] = filters
    sys.warnoptions[:] = [each for each in options.split(",") if each]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]
    warnings.filters[:0] = added
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _count_threads(environment: Mapping[str, str]) -> None:
    """Use as many threads as OMP_NUM_THREADS says, which OpenMP reads only while it is imported."""
    asked = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdigit() and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(asked))


if __name__ == "__main__":
    finish(serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]))
