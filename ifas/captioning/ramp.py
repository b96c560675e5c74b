"""How plainly a measurement shows something: 0 (not at all) to 1 (plainly), linear between two levels."""


def ramp(value: float, zero: float, one: float) -> float:
    """0 at `zero`, 1 at `one`, linear between them; `one` may be the smaller of the two."""
    return min(1.0, max(0.0, (value - zero) / (one - zero)))
