"""Sums of several terms in which only some are maps of one source.

``x + A(h) + B(h)``: whatever the order of the additions, A and B become one layer.
"""

from __future__ import annotations

from collections.abc import Callable

from vkconv.ir import Node, Value
from vkconv.passes.linear_regions import Region, Regions

#: sums of more terms are left as they are
MOST_TERMS = 64


def terms_of(root: Node, is_inner: Callable[[Value], bool]) -> tuple[list[Value], list[Node]]:
    """What a tree of additions adds up, in its order, and the nodes of the tree.

    ``is_inner``: whether a value is a sum that nothing but the tree reads.
    """
    terms: list[Value] = []
    nodes = [root]
    waiting = root.present_inputs[::-1]
    while waiting:
        value = waiting.pop()
        if value.producer is not None and is_inner(value):
            nodes.append(value.producer)
            waiting += value.producer.present_inputs[::-1]
        else:
            terms.append(value)
    return terms, nodes


def clusters_of_terms(
    terms: list[Value], regions: Regions, work: Callable[[Region], float]
) -> list[tuple[list[int], Region]]:
    """Terms, by index, that one layer may compute, with the map of their sum; most first.

    ``work``: what a region's map takes as one layer. No two of a source are put together where
    that would take more than both.
    """
    found: list[tuple[list[int], Region]] = []
    sources = {s: None for t in terms for s in regions.of(t)}
    for source in sources:
        items = [(i, regions.of(t)[source]) for i, t in enumerate(terms) if source in regions.of(t)]
        clusters: list[tuple[list[int], Region]] = []
        for index, region in sorted(items, key=lambda item: -item[1].work):
            for place, (members, joined) in enumerate(clusters):
                values = [terms[i] for i in (*members, index)]
                both = regions.join(values, [joined, region], [1, 1])
                if both is not None and work(both) <= both.work + region.map.outputs:
                    clusters[place] = ([*members, index], both)
                    break
            else:
                clusters.append(([index], region))
        found += [c for c in clusters if len(c[0]) > 1 and c[1].is_weighted]
    return sorted(found, key=lambda c: -len(c[0]))
