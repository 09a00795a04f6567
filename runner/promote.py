"""Give a run's model a name that others use, if it is better than what has that name.

RUN is compared with the model that holds the alias, on the same held-out rows: it is promoted when better beyond
chance, or, with no_worse_than, when it is behind by less than that for sure and cheaper to use. The first one is
compared with its base model. What decided is attached to the version in MLflow; a refusal says why and leaves with 1.

  python -m runner.promote RUN                         to the alias champion
  python -m runner.promote RUN as=candidate            to another alias
  python -m runner.promote RUN metric=house_style      by this grader or metric
  python -m runner.promote RUN no_worse_than=0.02      also if cheaper, and no
                                                       worse by more than that
  python -m runner.promote RUN deployment=NAME         hosted: the deployment
                                                       that callers use follows
  python -m runner.promote back=true                   back to the one before
  python -m runner.promote history=true                who had the alias, why
  python -m runner.promote undeploy=true               remove that deployment

name=NAME is the registered model, tracking.register of the run or what its data is called. Start from the model that
has the alias with model.source=models:/NAME@champion.
"""

from runner.errors import RequestError
from runner.promotion import keys as promotion_keys
from runner.record import run_folders
from runner.terminal import cli


def main() -> None:
    """Promote or go back; leave with 0, 1 where it is refused, 2 for what cannot be compared."""
    cli.main(_promote)


def _promote(arguments: list[str]) -> None:
    parser = cli.parser("runner.promote", __doc__)
    parser.add_argument("given", nargs="*", metavar="RUN or KEY=VALUE", help="the run by folder, name or plan id; keys")
    given = parser.parse_args(arguments)
    names = [each for each in given.given if "=" not in each]
    keys = promotion_keys.parse([each for each in given.given if "=" in each])
    # These ask MLflow alone, and work where no run is.
    alone = keys.back or keys.history or keys.undeploy
    if len(names) != (0 if alone else 1):
        wanted = "no run is named together with back, history or undeploy" if alone else "name one run"
        raise RequestError(f"promote: got {', '.join(names) or 'no run'}; {wanted}; --help shows how.")
    from runner import planning
    from runner.promotion import promoting
    from runner.terminal import console

    if keys.history:
        title, rows = promoting.shown_history(keys)
        console.table(title, ["when", "version", "instead of", "why"], rows)
        return
    if keys.undeploy:
        console.say(f"removed: deployment {promoting.undeploy(keys, given.runs_folder)}; its models stay.")
        return
    if keys.back:
        moved = promoting.go_back(keys, given.runs_folder)
    else:
        moved = promoting.promote(planning.load(run_folders.find(names[0], given.runs_folder)), keys, given.runs_folder)
    name = moved.version.name
    for sentence in moved.sentences:
        console.say(f"{sentence}.")
    console.say(f"models:/{name}@{keys.alias} is version {moved.version.number}.")
    console.say()
    further = "" if keys.alias == promotion_keys.Keys().alias else f" as={keys.alias}"
    lines = [
        (f"python -m runner model.source=models:/{name}@{keys.alias} …", "start from it"),
        (f"python -m runner.promote name={name}{further} back=true", "back to the one before"),
        (f"python -m runner.promote name={name}{further} history=true", "who had it, and why"),
    ]
    width = max(len(console.in_this_shell(typed)) for typed, _ in lines)
    for typed, purpose in lines:
        console.say(f"  {console.in_this_shell(typed):{width}}    {purpose}")


if __name__ == "__main__":
    main()
