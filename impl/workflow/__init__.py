"""The work itself: sheets, notes and what they are checked by."""

from __future__ import annotations

from impl.workflow.coverage import ApiCoverage, Symbol, api_coverage
from impl.workflow.formulas import Formula, formula_sheet
from impl.workflow.papers import Question, ReadingLog, reading_log

__all__ = [
    "ApiCoverage",
    "Formula",
    "Question",
    "ReadingLog",
    "Symbol",
    "api_coverage",
    "formula_sheet",
    "reading_log",
]
