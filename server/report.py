"""Placeholder while the page is being written."""
from pathlib import Path
def write_report(run_dir: Path) -> Path:
    return run_dir / "report.html"
