"""Numbers for people."""


def human(size: float) -> str:
    """Bytes in decimal units, e.g. "2.0 MB"."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
