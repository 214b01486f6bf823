"""The phases of a pretraining run, each with its own length of rows.

Attention takes time that grows with the square of a row's length, so BERT trains most of its steps on short rows and
the rest on long ones, which is when it learns the positions that short rows do not have. Example: the phases
"128:90%" and "512:10%" of 1,000,000 steps are

    phase 1   steps 1 to 900,000           rows of 128 tokens
    phase 2   steps 900,001 to 1,000,000   rows of 512 tokens

The learning rate follows one schedule over all phases. Each phase reads its own sequence of rows from the first one on.

References: Devlin et al., BERT, 2018, appendix A.2.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PHASE = re.compile(r"(?P<length>\d+):(?P<steps>[\d_]+)(?P<percent>%?)(:(?P<batch>\d+)(:(?P<accumulate>\d+))?)?")
FORM = "LENGTH:STEPS[:BATCH_SIZE[:ACCUMULATE]]"


@dataclass(frozen=True)
class Phase:
    """A phase of a run.

    Attributes:
        number: from 1.
        count: the number of phases.
        first_step: the step after which it begins.
        last_step: its last step.
        max_length: T, tokens of a row.
        batch_size: rows per update; None = the run's.
        accumulate: micro-batches per update; None = the run's.
    """

    number: int
    count: int
    first_step: int
    last_step: int
    max_length: int
    batch_size: int | None = None
    accumulate: int | None = None

    @property
    def steps(self) -> int:
        return self.last_step - self.first_step


def parse_phases(texts: Sequence[str], *, steps: int, whole: int) -> list[Phase]:
    """Returns the phases of a run that are reached within its steps.

    >>> [(phase.last_step, phase.max_length) for phase in parse_phases(["128:90%", "512:10%"], steps=50, whole=50)]
    [(45, 128), (50, 512)]

    Args:
        texts: LENGTH:STEPS, with :BATCH_SIZE or :BATCH_SIZE:ACCUMULATE behind it; STEPS are all numbers or all
            percentages.
        steps: the step at which the run stops. The last phase lasts until then.
        whole: the steps of which percentages are meant. Unlike `steps`, they do not change when a run is resumed.

    Raises:
        ValueError: a text of another form, numbers that do not add up to `steps`, or percentages not to 100.
    """
    matches = [_matched(text) for text in texts]
    percent = {bool(match["percent"]) for match in matches}
    if len(percent) > 1:
        raise ValueError(f"`phases`: the steps must be all numbers or all percentages, got {' '.join(texts)}")
    sizes = [int(match["steps"]) for match in matches]
    total = sum(sizes)
    if True in percent and total != 100:
        raise ValueError(f"`phases`: the percentages must add up to 100, got {' '.join(texts)}, {total} together")
    if False in percent and total != steps:
        raise ValueError(f"`phases`: the steps of {' '.join(texts)} add up to {total:,}, but `steps={steps}`")
    phases = []
    reached = 0
    for index, match in enumerate(matches):
        done = sum(sizes[: index + 1])
        end = round(whole * done / 100) if match["percent"] else done
        end = steps if index == len(matches) - 1 else min(end, steps)
        if end > reached:
            batch, accumulate = (None if size is None else int(size) for size in match.group("batch", "accumulate"))
            phases.append(Phase(index + 1, len(texts), reached, end, int(match["length"]), batch, accumulate))
        reached = end
    return phases


def longest_row(texts: Sequence[str]) -> int:
    """Returns the length of the longest rows of phases."""
    return max(int(_matched(text)["length"]) for text in texts)


def total_steps(texts: Sequence[str]) -> int | None:
    """Returns the steps of all phases together; None if they are percentages."""
    matches = [_matched(text) for text in texts]
    return None if any(match["percent"] for match in matches) else sum(int(match["steps"]) for match in matches)


def _matched(text: str) -> re.Match[str]:
    match = _PHASE.fullmatch(text)
    if match is None or not int(match["steps"]) or "0" in (match["length"], match["batch"], match["accumulate"]):
        raise ValueError(f"`phases`: a phase must be {FORM}, as in 128:900000 or 512:10%:64:8; got {text!r:.60}")
    return match
