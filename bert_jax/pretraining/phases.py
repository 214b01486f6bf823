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

_NUMBER = r"\d+(_\d+)*"
_PHASE = re.compile(
    rf"(?P<max_length>{_NUMBER}):(?P<steps>{_NUMBER})(?P<percent>%?)"
    rf"(:(?P<batch_size>{_NUMBER})(:(?P<accumulate>{_NUMBER}))?)?",
    re.ASCII,
)
FORM = "LENGTH:STEPS[:BATCH_SIZE[:ACCUMULATE]]"


@dataclass(frozen=True)
class Phase:
    """A phase of a run.

    Attributes:
        number: from 1.
        num_phases: of the run.
        first_step: the step after which it begins.
        last_step: its last step.
        max_length: T, tokens of a row.
        batch_size: rows per update; None = the run's.
        accumulate: micro-batches per update; None = the run's.
    """

    number: int
    num_phases: int
    first_step: int
    last_step: int
    max_length: int
    batch_size: int | None = None
    accumulate: int | None = None

    @property
    def steps(self) -> int:
        return self.last_step - self.first_step


def parse_phases(texts: Sequence[str], *, steps: int, decay_steps: int) -> list[Phase]:
    """Returns the phases of a run that are reached within its steps.

    >>> phases = parse_phases(["128:90%", "512:10%"], steps=50, decay_steps=50)
    >>> [(phase.last_step, phase.max_length) for phase in phases]
    [(45, 128), (50, 512)]

    Args:
        texts: LENGTH:STEPS, with :BATCH_SIZE or :BATCH_SIZE:ACCUMULATE behind it; STEPS are all numbers or all
            percentages.
        steps: the step at which the run stops. The last phase lasts until then.
        decay_steps: the steps of which percentages are meant. Unlike `steps`, they do not change when a run is resumed.

    Raises:
        ValueError: a text of another form, numbers that do not add up to `steps`, or percentages not to 100.
    """
    entries = [_Entry.parse(text) for text in texts]
    percent = {entry.percent for entry in entries}
    if len(percent) > 1:
        raise ValueError(f"`phases`: the steps must be all numbers or all percentages, got {' '.join(texts)}")
    total = sum(entry.steps for entry in entries)
    if True in percent and total != 100:
        raise ValueError(f"`phases`: the percentages must add up to 100, got {' '.join(texts)}, {total} together")
    if False in percent and total != steps:
        raise ValueError(f"`phases`: the steps of {' '.join(texts)} add up to {total:,}, but `steps={steps}`")
    phases = []
    reached = 0
    done = 0
    for number, entry in enumerate(entries, start=1):
        done += entry.steps
        end = round(decay_steps * done / 100) if entry.percent else done
        end = steps if number == len(entries) else min(end, steps)
        if end > reached:
            sizes = (entry.max_length, entry.batch_size, entry.accumulate)
            phases.append(Phase(number, len(entries), reached, end, *sizes))
        reached = end
    return phases


def longest_row(texts: Sequence[str]) -> int:
    """Returns the length of the longest rows of phases."""
    return max(_Entry.parse(text).max_length for text in texts)


def total_steps(texts: Sequence[str]) -> int | None:
    """Returns the steps of all phases together; None if they are percentages."""
    entries = [_Entry.parse(text) for text in texts]
    return None if any(entry.percent for entry in entries) else sum(entry.steps for entry in entries)


@dataclass(frozen=True)
class _Entry:
    """The text of one phase, parsed; `percent`: whether its steps are a percentage."""

    max_length: int
    steps: int
    percent: bool
    batch_size: int | None
    accumulate: int | None

    @classmethod
    def parse(cls, text: str) -> "_Entry":
        match = _PHASE.fullmatch(text)
        digits = match.group("max_length", "steps", "batch_size", "accumulate") if match else ("0",)
        numbers = [None if number is None else int(number) for number in digits]
        if match is None or 0 in numbers:
            raise ValueError(f"`phases`: a phase must be {FORM}, as in 128:900000 or 512:10%:64:8; got {text!r:.60}")
        return cls(int(match["max_length"]), int(match["steps"]), match["percent"] == "%", *numbers[2:])
