"""The paths that the pages of drift, models and quality ask: one version, one answer each."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from edge_contract.profile import Source
from edge_fleet import reports
from edge_fleet.api import asking, cursors, drift_views, model_views, quality_views, resources
from edge_fleet.api.described import describe

router = APIRouter(prefix="/api/v1")

Bundle = Annotated[
    str, Path(pattern=r"^[0-9a-f]{64}$", description="The bundle's digest, from /models.")
]
Feature = Annotated[str, Query(max_length=256)]
Hours = Annotated[int, Query(ge=1, le=drift_views.HOURS_MAX, description="How far back.")]
Ms = Annotated[int, Query(ge=0, le=cursors.INT_MAX, description="Milliseconds since 1970, UTC.")]
Shown = Annotated[int, Query(ge=1, le=200)]


def _json(value: object) -> Response:
    return Response(resources.encode(value), media_type="application/json")


@router.get(
    "/models",
    **describe(tuple[model_views.ModelView, ...], "Models, their versions and where those are."),
)
def list_models(ours: asking.Ours, _: asking.Viewer) -> Response:
    with ours.heavy(), ours.store.reading() as tx:
        return _json(model_views.models(tx))


@router.get(
    "/bundles/{bundle}",
    **describe(model_views.ModelPage, "One version: what it says of itself, how it has been."),
)
def read_bundle(ours: asking.Ours, _: asking.Viewer, bundle: Bundle, hours: Hours = 24) -> Response:
    with ours.heavy(), ours.store.reading() as tx:
        known = drift_views.known_of(tx, bundle)
        return _json(model_views.page(tx, known, ours.clock_ms(), hours=hours))


@router.get(
    "/bundles/{bundle}/drift",
    **describe(drift_views.DriftMap, "Feature by time: how far each is from its reference."),
)
def read_drift_map(
    ours: asking.Ours, _: asking.Viewer, bundle: Bundle, hours: Hours = 168
) -> Response:
    budget = reports.budget_of(ours.store.settings())
    with ours.heavy(), ours.store.reading() as tx:
        known = drift_views.known_of(tx, bundle)
        return _json(drift_views.drift_map(tx, known, ours.clock_ms(), budget, hours=hours))


@router.get(
    "/bundles/{bundle}/histogram",
    **describe(drift_views.Histogram, "One feature before and in a period, over all devices."),
)
def read_histogram(
    ours: asking.Ours,
    _: asking.Viewer,
    bundle: Bundle,
    *,
    feature: Feature,
    source: Source = "feature",
    since_ms: Ms,
    until_ms: Ms,
) -> Response:
    with ours.heavy(), ours.store.reading() as tx:
        known = drift_views.known_of(tx, bundle)
        return _json(
            drift_views.histogram(
                tx, known, source=source, feature=feature, since_ms=since_ms, until_ms=until_ms
            )
        )


@router.get(
    "/bundles/{bundle}/contributors",
    **describe(
        drift_views.Contributors, "Which devices hold the evidence, on a feature or on any."
    ),
)
def read_contributors(
    ours: asking.Ours,
    _: asking.Viewer,
    bundle: Bundle,
    *,
    feature: Feature = "",
    source: Source = "feature",
    limit: Shown = 20,
) -> Response:
    budget = reports.budget_of(ours.store.settings())
    with ours.heavy(), ours.store.reading() as tx:
        known = drift_views.known_of(tx, bundle)
        return _json(
            drift_views.contributors(
                tx, known, ours.clock_ms(), budget, source=source, feature=feature, limit=limit
            )
        )


@router.get(
    "/bundles/{bundle}/quality",
    **describe(quality_views.QualityHistory, "Estimated and labelled quality over time."),
)
def read_quality_history(
    ours: asking.Ours, _: asking.Viewer, bundle: Bundle, hours: Hours = 168
) -> Response:
    with ours.heavy(), ours.store.reading() as tx:
        known = drift_views.known_of(tx, bundle)
        return _json(quality_views.history(tx, known, ours.clock_ms(), hours=hours))
