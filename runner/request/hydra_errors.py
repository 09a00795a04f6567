"""Hydra's, OmegaConf's and YAML's errors in our words: place, what was found, what is allowed, the fix."""

import re
from collections.abc import Callable
from difflib import get_close_matches

from runner.errors import RequestError, RunnerError
from runner.request import suggestions
from runner.request.hydra_config import all_keys


def sentence(error: BaseException) -> RunnerError | None:
    """Return the error for the user, or None where it is no mistake of theirs."""
    if isinstance(error, RunnerError):
        return error
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or "the system"
        return RunnerError(f"{place}: {error.strerror}; fix that and give the same command again: it resumes.")
    # By name: torch is not to be imported for a sentence.
    if type(error).__name__ == "OutOfMemoryError":
        return RunnerError("backend: the device's memory is full; lower backend.max_length, or take a smaller model.")
    # Hydra's own check, which it forgets to raise as its own error, and which does not name the group.
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string"):
        return RequestError(
            "command line: a group, as backend or tracking, takes the name of an option, and got null or a number; "
            "--help lists the options (tracking=none keeps no record)."
        )
    # Anything else is a bug, which keeps its traceback.
    if type(error).__module__.partition(".")[0] not in ("hydra", "omegaconf", "yaml"):
        return None
    # Hydra wraps what OmegaConf or YAML found, and the place is often in the inner one.
    text = "\n".join(str(each) for each in (error, error.__cause__, error.__context__) if each)
    for pattern, words in _FORMS:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return RequestError(words(found))
    return RequestError(f"the request cannot be composed: {text.splitlines()[0]}")


def _unknown_option(found: re.Match[str]) -> str:
    group, option = found["group"], found["option"]
    first, _, rest = f"{group}/{option}".partition("/")
    instead = {"dataset": suggestions.for_dataset, "model": suggestions.for_model}.get(first, lambda _: None)(rest)
    if instead:
        return f"{first}: got '{rest}', which is none of the options that --help lists; write {instead}"
    # Hydra lists what there is, a tab before each.
    options = re.findall(r"^\t(\S+)$", found["rest"], re.MULTILINE)
    if group == "hydra/launcher":
        return (
            f"{group}: got '{option}'; {_meant(option, options)}installed are: {', '.join(options)}; "
            "pip install 'runner[sweeps]' adds joblib and submitit, 'runner[ray]' adds ray."
        )
    if first in ("dataset", "model"):
        more = "; other data is read from files: dataset=files dataset.train=FILE" if first == "dataset" else ""
        return f"{first}: got '{rest}'; {_meant(rest, options)}allowed: {', '.join(options)}{more}."
    if not options:
        return f"{group}: got '{option}'; there is no {group}/{option}.yaml here, nor among the runner's own."
    return f"{group}: got '{option}'; {_meant(option, options)}allowed: {', '.join(options)}."


def _unknown_key(found: re.Match[str]) -> str:
    key, known = found["key"], all_keys()
    # `experiments=NAME` would set a key; the group is not in the defaults, so Hydra wants a +.
    if key == "experiments":
        return "experiments: a named request is added, not set; write +experiments=NAME."
    if known.get(key):
        return f"{key}: belongs to {known[key]}, which this request does not choose; choose it, or leave the key out."
    return f"{key}: no such key; {suggestions.for_key(key, known)}--cfg job shows all keys of a request."


def _meant(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"did you mean {close[0]}? " if close else ""


_KINDS = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
# Neither library has error codes: their texts are matched. A test holds each pattern against the real
# command, so that an update that rewords them is noticed.
_FORMS: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'(?P<rest>.*)", _unknown_option),
    (r"Could not override '(?P<key>[^']+)'", _unknown_key),
    (
        r"Could not append to config\. An item is already at '(?P<key>[^']+)'",
        lambda found: f"{found['key']}: this key exists already; leave out the + before it.",
    ),
    (
        r"Could not delete from config\. '?(?P<key>[\w.]+)|Could not delete '(?P<group>[^']+)'",
        lambda found: f"{found['key'] or found['group']}: there is no such key or group to take away; leave out the ~.",
    ),
    (
        r"(?:Lexer\w+: |)(?P<what>[^\n]*)\n[^\n]*\s*See https://hydra\.cc/docs/[^\n]*override_grammar",
        lambda found: (
            f"command line: {found['what'].strip()}; write key=value, and quote a value that holds "
            "spaces, commas, brackets or = ('key=\"value\"')."
        ),
    ),
    (
        r"(?P<problem>mapping values are not allowed here|while [^\n]+|could not find expected[^\n]*|found [^\n]+)"
        r".*?in \"(?P<file>[^\"]+)\", line (?P<line>\d+)",
        lambda found: f"{found['file']}:{found['line']}: not valid YAML: {found['problem']}; fix that line.",
    ),
    (
        r"Interpolation key '(?P<key>[^']+)' not found.*?full_key: (?P<where>\S+)",
        lambda found: f"{found['where']}: refers to ${{{found['key']}}}, which does not exist; name a key that does.",
    ),
    (
        r"Environment variable '(?P<name>[^']+)' not found.*?full_key: (?P<where>\S+)",
        lambda found: f"{found['where']}: needs the environment variable {found['name']}, which is not set; set it.",
    ),
    (
        r"Value '(?P<value>[^']*)'[^\n]* could not be converted to (?P<kind>\w+).*?full_key: (?P<key>\S+)",
        lambda found: f"{found['key']}: got '{found['value']}'; allowed: {_KINDS.get(found['kind'], found['kind'])}.",
    ),
    (
        r"does not support sweep type",
        lambda _: "command line: interval() is a range to search, and a grid takes values; add hydra/sweeper=optuna.",
    ),
    (
        r"Ambiguous value for argument '(?P<override>[^=]+)=[^']*'",
        lambda found: f"{found['override']}: several values make a sweep; add -m, or write a list as [a,b].",
    ),
]
