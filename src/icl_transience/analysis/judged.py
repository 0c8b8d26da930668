"""A claim with all that its lanes say of it, by the fixed-sample test and by evidence."""

from dataclasses import dataclass

import pandas as pd

from icl_transience.analysis import claim_evidence, claim_tests
from icl_transience.analysis.claim_evidence import Reading
from icl_transience.analysis.claim_tests import Finding
from icl_transience.analysis.claim_values import Lanes, atoms, measure
from icl_transience.specs.records import ClaimRecord


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim with what its lanes say. p, p_against: by the test that decides it. finding: what is told of the effect.

    lanes: of each part. fixed: what the fixed-sample test finds. part: the place of the one that `finding` is of.
    """

    claim: ClaimRecord
    lanes: tuple[Lanes, ...]
    reading: Reading
    finding: Finding
    fixed: Finding
    part: int
    p: float
    p_against: float

    @property
    def is_fixed(self) -> bool:
        """Return whether it is decided by the fixed-sample test."""
        return self.claim.evidence == "fixed"


def judge_claim(claim: ClaimRecord, table: pd.DataFrame) -> Judged:
    """Judge a claim. table: transience.csv of its experiment."""
    parts = atoms(claim)
    lanes = tuple(measure(part, table) for part in parts)
    reading = claim_evidence.read(parts, lanes)
    if is_fixed := claim.evidence == "fixed":
        tested = lanes
    else:
        tested = tuple(one.of_seeds(list(reading.seeds)) for one in lanes)
    of_parts = [claim_tests.assess(part, one.values, claim.confidence) for part, one in zip(parts, tested, strict=True)]
    part, fixed = claim_tests.all_of(of_parts)
    finding, p, p_against = fixed, fixed.p, fixed.p
    if not is_fixed:
        part = reading.weakest()
        finding = claim_evidence.effect(reading, part, lanes[part], of_parts[part], claim.confidence)
        *_, p, p_against = reading.last()
    return Judged(
        claim=claim,
        lanes=lanes,
        reading=reading,
        finding=finding,
        fixed=fixed,
        part=part,
        p=p,
        p_against=p_against,
    )
