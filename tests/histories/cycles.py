"""Groups of nodes that reach each other (Tarjan's strongly connected components, iterative)."""

from collections.abc import Iterator, Mapping, Set


def cycles(edges: Mapping[int, Set[int]]) -> list[set[int]]:
    """Every strongly connected component of more than one node."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    open_nodes: list[int] = []
    is_open: set[int] = set()
    found: list[set[int]] = []
    for root in edges:
        if root in number:
            continue
        path: list[tuple[int, Iterator[int]]] = []
        _enter(root, edges, number, low, open_nodes, is_open, path)
        while path:
            node, successors = path[-1]
            following = next(successors, None)
            if following is None:
                path.pop()
                if path:
                    parent = path[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == number[node]:
                    component = set()
                    while node not in component:
                        component.add(open_nodes.pop())
                    is_open -= component
                    if len(component) > 1:
                        found.append(component)
            elif following not in number:
                _enter(following, edges, number, low, open_nodes, is_open, path)
            elif following in is_open:
                low[node] = min(low[node], number[following])
    return found


def _enter(
    node: int,
    edges: Mapping[int, Set[int]],
    number: dict[int, int],
    low: dict[int, int],
    open_nodes: list[int],
    is_open: set[int],
    path: list[tuple[int, Iterator[int]]],
) -> None:
    number[node] = low[node] = len(number)
    open_nodes.append(node)
    is_open.add(node)
    path.append((node, iter(edges.get(node, ()))))
