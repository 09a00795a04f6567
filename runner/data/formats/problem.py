"""Problems in any shape that people have them in: every key is read, and kept for graders.

`messages` that end with the user's turn, as services take them for reinforcement fine-tuning; a text or turns under
`prompt` or `question`, as gsm8k and reasoning-gym have it; or a row of any other format: its prompt and its answers.
"""

from runner.data.formats import Format
from runner.data.json_value import Json
from runner.data.problems import problem_of

FORMAT = Format("problem", "problem", dict[str, Json], problem_of)
