"""From the raw files of runs to Markdown tables and plots."""

from soft_sglang.eval.report.document import write_report

__all__ = ["write_report"]
