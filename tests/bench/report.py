"""Tables, JSON and plots of what was measured."""

import json

from bench import svg

FLOORS = ("min", "slb")
PRODUCT = "load balancer"


def packet_rows(measured):
    """One row for each program and case; `measured` is (case, results) each."""
    for case, results in measured:
        by_name = {result.target.name: result for result in results}
        yardstick = by_name["slb"].minimum
        for name, result in by_name.items():
            yield {
                "case": case.name,
                "program": name,
                "net_ns": round(result.minimum, 1),
                "median_ns": round(result.median, 1),
                "spread_ns": round(result.spread, 1),
                "times_slb": round(result.minimum / yardstick, 2),
                "goal": case.goal if name == PRODUCT else None,
                "wrapper_ns": round(min(by_name[PRODUCT].base), 1),
                "samples_ns": [round(sample, 2) for sample in result.samples],
            }


def step_rows(measured):
    """One row for each step and case; `measured` is (case, results) each."""
    for case, results in measured:
        before = (0.0, 0.0)
        for result in results:
            yield {
                "case": case.name,
                "step": result.target.name,
                "adds_ns": round(result.minimum - before[0], 1),
                "adds_median_ns": round(result.median - before[1], 1),
                "sum_ns": round(result.minimum, 1),
            }
            before = (result.minimum, result.median)


def duration_rows(durations):
    """One row for each job of the executor."""
    for each in durations:
        yield {
            "job": each.name,
            "ms": round(each.minimum, 2),
            "median_ms": round(each.median, 2),
            "cpu_ms": round(each.cpu, 2),
            "rounds": len(each.samples),
            "map_writes": each.writes,
            "goal_ms": each.goal,
        }


def table(rows, columns):
    """Text; `columns` is (heading, key) each. The first column is as wide as its longest text."""
    lines = [[heading for heading, _ in columns]]
    lines += [["" if row[key] is None else str(row[key]) for _, key in columns] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) if column == 0 else text.rjust(width) for column, (text, width) in enumerate(cells))
        for cells in (list(zip(line, widths)) for line in lines)
    )


def tables(report):
    """Everything, as text."""
    packets = [row for row in report["packets"] if row["program"] == PRODUCT]
    for row in packets:
        peers = {each["program"]: each for each in report["packets"] if each["case"] == row["case"]}
        row["min"], row["slb"] = (peers[name]["net_ns"] for name in FLOORS)
    yield table(
        packets,
        (
            ("load balancer, ns a packet", "case"),
            ("net", "net_ns"),
            ("median", "median_ns"),
            ("spread", "spread_ns"),
            ("x slb", "times_slb"),
            ("goal", "goal"),
            ("slb", "slb"),
            ("min", "min"),
            ("wrapper", "wrapper_ns"),
        ),
    )
    for case in dict.fromkeys(row["case"] for row in report["steps"]):
        rows = [row for row in report["steps"] if row["case"] == case]
        yield table(rows, ((case, "step"), ("adds ns", "adds_ns"), ("median", "adds_median_ns"), ("sum", "sum_ns")))
    if report["variants"]:
        columns = (("other ways", "variant"), ("case", "case"), ("adds ns", "adds_ns"), ("median", "adds_median_ns"))
        yield table(report["variants"], columns)
    yield table(
        report["executor"],
        (
            ("executor", "job"),
            ("ms", "ms"),
            ("median", "median_ms"),
            ("of it CPU", "cpu_ms"),
            ("rounds", "rounds"),
            ("map writes", "map_writes"),
            ("goal", "goal_ms"),
        ),
    )
    yield table(
        [
            {"case": case, "calls": sum(calls.values()), "which": ", ".join(f"{n} {name}" for name, n in calls.items())}
            for case, calls in report["figures"]["helpers"].items()
        ],
        (("helper calls of one packet", "case"), ("calls", "calls"), ("which", "which")),
    )
    verifier = ", ".join(f"{name} {number}" for name, number in report["figures"]["verifier"].items())
    yield f"verifier ({report['figures']['toolchain']}): {verifier}"


def write(report, directory):
    """bench.json and the plots; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
    plots = {"packets.svg": _packets_plot(report["packets"]), "executor.svg": _executor_plot(report["executor"])}
    if report["steps"]:
        plots["steps.svg"] = _steps_plot(report["steps"])
    for name, text in plots.items():
        (directory / name).write_text(text)
    return [directory / name for name in ("bench.json", *plots)]


def _packets_plot(rows):
    bars = [
        svg.Bar(f"{row['case']}, {row['program']}", [("", row["net_ns"])], row["spread_ns"])
        for row in rows
        if row["program"] in (PRODUCT, "slb")
    ]
    return svg.plot("nanoseconds a packet, net (line: half of all rounds)", bars)


def _steps_plot(rows):
    bars = []
    for case in dict.fromkeys(row["case"] for row in rows):
        parts = [(row["step"], max(0.0, row["adds_ns"])) for row in rows if row["case"] == case]
        bars.append(svg.Bar(case, parts))
    return svg.plot("nanoseconds a packet, by step", bars)


def _executor_plot(rows):
    return svg.plot(
        "milliseconds", [svg.Bar(row["job"], [("", row["ms"])], row["median_ms"] - row["ms"]) for row in rows]
    )
