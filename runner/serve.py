"""Serve a run's model at an OpenAI-compatible address of this machine, by an engine made for that.

RUN is a run's folder, its name under `runs/`, or the start of its plan id. The rest is KEY=VALUE:

  engine=transformers  the engine, of those below
  program=…            of engine=vllm, where vLLM is in another environment:
                       program=/opt/vllm/bin/vllm
  quantization=…       how the weights are kept, as in runner.export --help
  port=8000            0 takes one that is free
  rows=20              of the export's proof, as max_new_tokens=64 and
                       force=true, which runner.export explains

  python -m runner.serve dpo-house_style engine=llama_cpp

What the engine loads is exported and proven first, once (runner.export), by the engine itself. Once it answers, it is
asked some of the held-out prompts by both of its interfaces. Ctrl-C ends it.
"""

import signal
from dataclasses import dataclass

from runner.request.types import Port, PositiveInt
from runner.terminal import cli, console


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The keys of the command."""

    engine: str = "transformers"
    program: str | None = None
    quantization: str | None = None
    port: Port = 8000
    rows: PositiveInt = 20
    max_new_tokens: PositiveInt = 64
    force: bool = False


def main() -> None:
    """Serve until Ctrl-C; leave with 130 after it, 1 where the engine fails, 2 for what cannot be served."""
    cli.main(_serve)


def _serve(arguments: list[str]) -> None:
    description = f"{(__doc__ or '').rstrip()}\n\n{_engines()}"
    run, asked = cli.run_and_keys("runner.serve", description, arguments, Asked)
    # A service that is stopped by its supervisor ends its engine, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from runner.exporting import carry_out
    from runner.serving import engines, greeting
    from runner.serving.server import free, served

    engine = engines.load(asked.engine, asked.program)
    engine.demand()
    port = free(asked.port)  # before an export that may take a quarter of an hour
    planned = carry_out.wanted(
        run, engine.form, asked.quantization, asked.rows, asked.max_new_tokens, asked.force, engine
    )
    folder, export = carry_out.export(planned, console.say)
    console.say(f"starting {engine.name} with {folder} …")
    with served(engine, folder, run.name, port) as found:
        known = carry_out.known(planned)
        same, count = greeting.check(found, known.asked, known.run, planned.bound if export.proven else None)
        console.say(f"it answers {same} of {count} held-out prompts as the run's model does\n")
        console.say(greeting.lines(found))
        found.process.wait()
    console.complain(f"{engine.name}: ended with {found.process.returncode}.")
    raise SystemExit(1)


def _engines() -> str:
    """Return a line for each engine, with the form that it loads."""
    from runner.serving import engines

    lines = [f"  {name:{20}} {engines.load(name).form}" for name in engines.names()]
    return "\n".join(["  engine=              loads format=", *lines])


if __name__ == "__main__":
    main()
