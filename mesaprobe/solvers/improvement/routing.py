"""The practitioner's heuristic: OR-Tools' routing library, as its documentation sets it up for one vehicle."""

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.weights import checked_weights


def routing(
    weights: Int32[np.ndarray, "batch n n"], *, time_limit: float | None = None
) -> Int64[np.ndarray, "batch n"]:
    """Start from the cheapest arcs (PATH_CHEAPEST_ARC), then improve by the library's default local search.

    Without a time limit the search ends in a local optimum; with one (in seconds, per instance) guided local
    search goes on until it is over (at least 1 ms). Tours begin at city 0; asymmetric weights are allowed. Nothing
    is proven.
    """
    tours = [_route(instance, time_limit) for instance in checked_weights(weights)]
    return np.array(tours, dtype=np.int64).reshape(weights.shape[:2])


def _route(weights: np.ndarray, time_limit: float | None) -> list[int]:
    from ortools.constraint_solver import pywrapcp, routing_enums_pb2

    manager = pywrapcp.RoutingIndexManager(len(weights), 1, 0)
    model = pywrapcp.RoutingModel(manager)
    model.SetArcCostEvaluatorOfAllVehicles(model.RegisterTransitMatrix(weights.tolist()))
    parameters = pywrapcp.DefaultRoutingSearchParameters()
    parameters.first_solution_strategy = routing_enums_pb2.FirstSolutionStrategy.PATH_CHEAPEST_ARC
    if time_limit is not None:
        parameters.local_search_metaheuristic = routing_enums_pb2.LocalSearchMetaheuristic.GUIDED_LOCAL_SEARCH
        parameters.time_limit.FromMilliseconds(max(round(1000 * time_limit), 1))
    solution = model.SolveWithParameters(parameters)
    if solution is None:  # the time was over before the first tour
        return nearest_neighbour(weights[None])[0].tolist()
    tour, index = [], model.Start(0)
    while not model.IsEnd(index):
        tour.append(manager.IndexToNode(index))
        index = solution.Value(model.NextVar(index))
    return tour
