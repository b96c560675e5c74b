"""One figure: a value, the baseline measured in the same run, their ratio, and the bar that it must reach."""

import json


def figure(
    name: str,
    value: float,
    unit: str,
    *,
    baseline: float | None = None,
    bar: float | None = None,
    bar_is: str = "value <=",
) -> bool:
    """Prints the figure as a JSON line. `ok` is null where there is no bar.

    Args:
        bar_is: what the bar limits: "value <=", "ratio <=" or "ratio >=".
    """
    ratio = value / baseline if baseline else None
    ok = None
    if bar is not None:
        subject = ratio if bar_is.startswith("ratio") else value
        assert subject is not None
        ok = subject >= bar if bar_is.endswith(">=") else subject <= bar
    line = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 4),
        "ratio": None if ratio is None else round(ratio, 3),
        "bar": None if bar is None else f"{bar_is} {bar}",
        "ok": ok,
    }
    print(json.dumps(line), flush=True)
    return ok is not False
