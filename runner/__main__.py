"""`python -m runner`: plans and executes the request on the command line (execution/command_line.py)."""

import gc


def main() -> None:
    """Run the command line; leave with 0, 1 (failed), 2 (wrong request or data) or 130 (stopped)."""
    # Modules and composed requests have next to no garbage, and looking for it takes a tenth of the time of
    # `--cfg job`; the collector is on again when the plan is made (execution/pipeline.py).
    gc.disable()
    from runner.execution import command_line

    command_line.main()


if __name__ == "__main__":
    main()
