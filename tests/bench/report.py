"""Tables, JSON and plots of what was measured."""

import json
import statistics

from tools import svg

FLOORS = ("min", "slb")
PRODUCT = "load balancer"
SLB, PRODUCT_TC, KERNEL, NFT = "slb", f"{PRODUCT} at tc", "kernel forwarding", "nft DNAT"
"""What forwards on the wire, besides the load balancer."""


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


def hook_rows(measured):
    """One row for each case; `measured` is (case, results of `slb`, at XDP and at tc) each."""
    for case, (slb, at_xdp, at_tc) in measured:
        yield {
            "case": case.name,
            **_at_hook("slb", slb),
            **_at_hook("xdp", at_xdp),
            **_at_hook("tc", at_tc),
            "times_xdp": round(at_tc.minimum / at_xdp.minimum, 2),
            "clock_ns": round(min(at_xdp.base), 1),
        }


def _at_hook(name, result):
    return {
        f"{name}_ns": round(result.minimum, 1),
        f"{name}_median_ns": round(result.median, 1),
        f"{name}_spread_ns": round(result.spread, 1),
        f"{name}_samples_ns": [round(sample, 2) for sample in result.samples],
    }


def wire_rows(results, goals):
    """One row for each forwarder, number of flows and placement of cores; ratios are those of the same round."""
    for result in results:
        peers = {each.name: each for each in results if (each.cores, each.flows) == (result.cores, result.flows)}
        rates = [sample.pps / 1e6 for sample in result.samples]
        sent, turns = (sum(getattr(sample, name) for sample in result.samples) for name in ("sent", "turns"))
        yield {
            "cores": result.cores,
            "traffic": result.traffic,
            "program": result.name,
            "mpps": round(statistics.median(rates), 2),
            "best_mpps": round(max(rates), 2),
            **_times("slb", result, peers.get(SLB)),
            **_times("nft", result, peers.get(NFT)),
            "goal": "at least {} x slb, {} x nft".format(*goals[result.flows]) if result.name == PRODUCT else None,
            "generator_waits": round(1 - sent / turns, 2),
            "core_busy": round(
                sum(each.core for each in result.samples) / sum(each.wall for each in result.samples), 2
            ),
            "samples_mpps": [round(rate, 3) for rate in rates],
        }


def _times(name, result, other):
    """Median of the ratios of all rounds, and the bounds of their middle half."""
    if other is None:
        return {f"times_{name}": None, f"times_{name}_middle": None}
    ratios = [mine.pps / its.pps for mine, its in zip(result.samples, other.samples)]
    lower, middle, upper = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {f"times_{name}": round(middle, 2), f"times_{name}_middle": f"{lower:.2f} to {upper:.2f}"}


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
    yield from _travelling_tables(report)
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


def _travelling_tables(report):
    if report["left_out"]:
        yield "left out, as this machine lacks it: " + "; ".join(report["left_out"])
    if report["hooks"]:
        columns = (
            ("the program alone, ns a packet", "case"),
            ("slb net", "slb_ns"),
            ("XDP net", "xdp_ns"),
            ("median", "xdp_median_ns"),
            ("spread", "xdp_spread_ns"),
            ("tc net", "tc_ns"),
            ("median", "tc_median_ns"),
            ("spread", "tc_spread_ns"),
            ("x XDP", "times_xdp"),
            ("clock", "clock_ns"),
        )
        yield table(report["hooks"], columns)
    kinds = [(row["cores"], row["traffic"]) for row in report["wire"]]
    for kind in dict.fromkeys(kinds):
        columns = (
            (", ".join(kind), "program"),
            ("Mpps", "mpps"),
            ("best", "best_mpps"),
            ("x slb", "times_slb"),
            ("middle half", "times_slb_middle"),
            ("x nft", "times_nft"),
            ("middle half", "times_nft_middle"),
            ("generator waits", "generator_waits"),
            ("core busy", "core_busy"),
            ("goal", "goal"),
        )
        yield table([row for row, its in zip(report["wire"], kinds) if its == kind], columns)


def write(report, directory):
    """bench.json and the plots; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
    plots = {"packets.svg": _packets_plot(report["packets"]), "executor.svg": _executor_plot(report["executor"])}
    if report["wire"]:
        plots["wire.svg"] = _wire_plot(report["wire"])
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


def _wire_plot(rows):
    bars = [
        svg.Bar(
            f"{row['cores'].replace('wire, ', '')}, {row['traffic']}: {row['program']}",
            [("", row["mpps"])],
            row["best_mpps"] - row["mpps"],
        )
        for row in rows
    ]
    return svg.plot("million packets a second of one core, median (line: to the best round)", bars)


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
