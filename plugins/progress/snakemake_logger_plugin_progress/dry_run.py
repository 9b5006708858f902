"""The jobs of a dry-run as a table: how many of each rule, and why."""

from __future__ import annotations

from collections import Counter

#: Beginning of a reason that follows from another job, and is shown only where there is no other.
FOLLOWING = "Input files updated by another job"


class JobTable:
    """Jobs of a dry-run, counted by rule and reason."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._messages: list[str] = []

    def add(self, rule: str, reason: str, output: list[str], message: str | None) -> None:
        """Count a job.

        Parameters
        ----------
        rule : str
            Name of its rule.
        reason : str
            Why Snakemake would run it; several reasons with "; " between them.
        output : list of str
            Its output.
        message : str or None
            Message of the rule, which is shown for a job without output.
        """
        self._counts.setdefault(rule, Counter())[kind_of(reason)] += 1
        if message and not output:
            self._messages.append(message)

    def text(self) -> str:
        """Write the table.

        Returns
        -------
        str
            A line for each rule and reason in the order of the jobs, and the sum.
        """
        rows = [(rule, n, reason) for rule, counts in self._counts.items() for reason, n in counts.most_common()]
        rows.append(("total", sum(n for _, n, _ in rows), ""))
        width = max(len(rule) for rule, *_ in rows)
        lines = [f"{'job':{width}}  count  reason", *(f"{rule:{width}}  {n:5}  {reason}".rstrip() for rule, n, reason in rows)]
        return "\n".join([*lines, *self._messages])


def kind_of(reason: str) -> str:
    """Shorten the reason of a job: without files, and without what follows from other jobs if there is more.

    Parameters
    ----------
    reason : str
        Reason, as Snakemake words it.

    Returns
    -------
    str
        The kinds of reasons, in lower case.
    """
    kinds = dict.fromkeys(part.partition(":")[0].strip() for part in reason.split("; "))
    own = [kind for kind in kinds if kind != FOLLOWING] or list(kinds)
    return "; ".join(kind[:1].lower() + kind[1:] for kind in own)
