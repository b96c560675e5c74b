"""The lineage as a graph: a node for each step, an edge where one step took what another wrote, by its hash."""

from __future__ import annotations

from dataclasses import dataclass

from ifas.core.records import Lineage, LineageEntry

STEP_W, STEP_H, GAP, TOP = 104, 40, 24, 74


@dataclass(frozen=True)
class Node:
    """A step, and where it stands."""

    entry: LineageEntry
    x: int
    y: int


@dataclass(frozen=True)
class Edge:
    """Who takes what from whom, and the path of its line."""

    source: str
    target: str
    what: str
    path: str


@dataclass(frozen=True)
class Graph:
    """Nodes, edges, and the size of the drawing."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    width: int
    height: int


def graph(lineage: Lineage) -> Graph:
    """The drawing of a lineage: steps in a row; an edge that skips steps goes above them."""
    nodes = tuple(Node(entry, i * (STEP_W + GAP), TOP) for i, entry in enumerate(lineage.entries))
    edges = []
    for i, node in enumerate(nodes):
        for j in range(i):
            source = nodes[j].entry
            taken = sorted(n for n, sha in node.entry.inputs.items() if source.outputs.get(n) == sha)
            if taken:
                edges.append(Edge(source.step, node.entry.step, ", ".join(taken), _path(nodes[j], node, i - j)))
    return Graph(nodes, tuple(edges), len(nodes) * (STEP_W + GAP) - GAP, TOP + STEP_H + 6)


def _path(source: Node, target: Node, steps: int) -> str:
    if steps == 1:
        y = source.y + STEP_H // 2
        return f"M{source.x + STEP_W} {y}H{target.x - 5}"
    rise = source.y - 10 - 11 * min(steps, 6)
    start, end = source.x + STEP_W - 16, target.x + 12 + 6 * min(steps, 6)
    return f"M{start} {source.y}C{start} {rise} {end} {rise} {end} {target.y - 5}"
