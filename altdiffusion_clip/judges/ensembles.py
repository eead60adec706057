"""Combines judges: a score from each, and rules that make one score from several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.base import Judge, is_dual


def logits(scores: Tensor) -> Tensor:
    """The mean of logit_scale · cosine, which is the geometric mean of the judges' probabilities up to a constant.

    Args:
        scores: float (judges, pictures), already multiplied by each judge's scale.
    """
    return scores.mean(0)


def zscores(scores: Tensor) -> Tensor:
    """The mean of the judges' scores after standardising each over the pictures.

    Args:
        scores: float (judges, pictures).

    Example:
        >>> zscores(torch.tensor([[0.1, 0.2], [5.0, 9.0]])).tolist()
        [-1.0, 1.0]
    """
    spread = scores.std(1, correction=0, keepdim=True)
    return ((scores - scores.mean(1, keepdim=True)) / torch.where(spread > 0, spread, 1.0)).mean(0)


def ranks(scores: Tensor) -> Tensor:
    """The negative mean of the judges' ranks. Equal scores share their mean rank.

    Args:
        scores: float (judges, pictures).

    Example:
        >>> ranks(torch.tensor([[0.1, 0.2, 0.3], [5.0, 9.0, 9.0]])).tolist()
        [-3.0, -1.75, -1.25]
    """
    better = (scores[:, None, :] > scores[:, :, None]).sum(2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(2)
    return -(better + (equal + 1) / 2).mean(0)


RULES: dict[str, Callable[[Tensor], Tensor]] = {"logits": logits, "zscores": zscores, "ranks": ranks}


@dataclass(frozen=True)
class Ensemble:
    """A judge that combines the scores of several judges.

    Attributes:
        judges: two or more.
        rule: "logits" (only for judges with vectors), "zscores" or "ranks". The last two compare the pictures of one
            call, so a picture's score depends on the others.
        name: to show.

    Raises:
        UserError: the rule is unknown, or does not work with these judges.
    """

    judges: tuple[Judge, ...]
    rule: str = "zscores"
    name: str = "ensemble"
    measure: str = "score"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"there is no rule {self.rule!r} for several judges; choose one of {', '.join(RULES)}")
        if len(self.judges) < 2:
            raise UserError(f"{self.rule} makes one score of several judges; name two or more")
        alone = [judge.name for judge in self.judges if not is_dual(judge)]
        if self.rule == "logits" and alone:
            raise UserError(f"{alone[0]} gives no cosines, so it has no logits; take zscores or ranks")

    @property
    def is_by_row(self) -> bool:
        """Whether the score of a picture is independent of other pictures."""
        return self.rule == "logits"

    def combine(self, scores: Tensor) -> Tensor:
        """Combines float32 (judges, pictures) into one score per picture, float32 (pictures,)."""
        if self.rule == "logits":
            scales = [judge.logit_scale if is_dual(judge) else 1.0 for judge in self.judges]
            scores = scores * torch.tensor(scales)[:, None]
        return RULES[self.rule](scores)

    def probability(self, scores: Tensor) -> Tensor | None:
        """The softmax of mean logits over the pictures; None for other rules."""
        return scores.softmax(0) if self.rule == "logits" else None


class Panel:
    """Judges and ensembles, with each member only once.

    Args:
        columns: what to report, in order.
    """

    def __init__(self, columns: Sequence[Judge | Ensemble]) -> None:
        self.columns = tuple(columns)
        judges = [judge for each in columns for judge in (each.judges if isinstance(each, Ensemble) else (each,))]
        self.members: tuple[Judge, ...] = tuple(dict.fromkeys(judges))
        names = [each.name for each in self.columns]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"two judges are called {twice}; give one another name, as NAME={twice}")

    @property
    def is_by_row(self) -> bool:
        """Whether the scores of a picture are independent of other pictures."""
        return all(each.is_by_row for each in self.columns if isinstance(each, Ensemble))

    def check_by_row(self) -> None:
        """Rejects ensembles that compare pictures, where each must be scored alone.

        Raises:
            UserError: there is such an ensemble.
        """
        if not self.is_by_row:
            raise UserError(
                "zscores and ranks compare pictures with each other; here each is scored alone, so take logits"
            )

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Changes the device and dtype of all members."""
        for judge in self.members:
            judge.to(device, dtype)
        return self

    def combine(self, scores: Tensor) -> Tensor:
        """Turns the members' scores (members, pictures) into the columns to report, float32 (columns, pictures).

        Pictures with a score that is not finite do not affect the others.
        """
        finite = torch.isfinite(scores).all(0)
        combined = torch.full((len(self.columns), scores.shape[1]), torch.nan)
        of_member = dict(zip(self.members, scores[:, finite], strict=True))
        for place, column in enumerate(self.columns):
            if isinstance(column, Ensemble):
                combined[place, finite] = column.combine(torch.stack([of_member[judge] for judge in column.judges]))
            else:
                combined[place, finite] = of_member[column]
        return combined

    def describe(self) -> list[dict[str, Any]]:
        """Everything that decides the scores, as JSON."""
        described: list[dict[str, Any]] = []
        for each in self.columns:
            judges = each.judges if isinstance(each, Ensemble) else (each,)
            rule = {"rule": each.rule} if isinstance(each, Ensemble) else {}
            prints = [judge.fingerprint() for judge in judges]
            described.append({"name": each.name, "measure": each.measure, **rule, "fingerprints": prints})
        return described
