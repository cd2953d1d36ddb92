"""Vega-Lite specifications: what to draw, not how. Colours follow the page, light or dark."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]
_INK, _BLUE = "currentColor", "#2a8fd8"
_CONFIG: Spec = {
    "background": "transparent",
    "autosize": {"type": "fit-x", "contains": "padding"},
    "view": {"stroke": None},
    "font": "system-ui, sans-serif",
    "axis": {"labelColor": _INK, "titleColor": _INK, "domainColor": _INK, "tickColor": _INK, "gridColor": _INK}
    | {"gridOpacity": 0.15, "domainOpacity": 0.4, "labelLimit": 260, "labelFontSize": 11, "titleFontSize": 12},
    "legend": {
        "labelColor": _INK,
        "titleColor": _INK,
        "labelLimit": 400,
        "symbolBaseFillColor": _INK,
        "symbolBaseStrokeColor": _INK,
        "orient": "bottom",
        "columns": 1,
    }
    | {"layout": {"bottom": {"anchor": "start", "direction": "vertical"}}},
    "header": {"labelColor": _INK, "titleColor": _INK, "labelAnchor": "start", "labelFontWeight": "bold"},
    "title": {"color": _INK, "anchor": "start"},
    "range": {
        "category": ["#2a8fd8", "#e07b39", "#3aa76d", "#c8508f", "#8c76d9", "#b39b2e", "#4fb3b3", "#d65f5f", "#8a8f98"]
    },
}


def _spec(description: str, **parts: Any) -> Spec:
    schema = "https://vega.github.io/schema/vega-lite/v6.json"
    return {"$schema": schema, "description": description, "config": _CONFIG, "width": "container", **parts}


def history(title: str, unit: str, rows: list[Spec]) -> Spec:
    """A figure over commits, oldest first, with its samples, its level and the noise around that."""
    at = {"field": "at", "type": "ordinal", "sort": None, "title": None, "axis": {"labelAngle": -50, "grid": False}}
    scale = {"zero": False, "nice": True, "padding": 8}
    value = {"type": "quantitative", "title": unit or "value", "scale": scale}
    samples = [{"at": row["at"], "sample": x} for row in rows for x in row["samples"]]
    tooltip = [{"field": "at", "title": "commit"}, {"field": "subject"}]
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.2, "color": _BLUE, "interpolate": "step"},
            "encoding": {"y": {"field": "low", **value}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "color": _BLUE, "strokeDash": [4, 3], "interpolate": "step"},
            "encoding": {"y": {"field": "level", **value}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "color": _BLUE, "opacity": 1, "cursor": "pointer"},
            "encoding": {
                "y": {"field": "value", **value},
                "href": {"field": "page"},
                "tooltip": [{"field": "value", "title": unit or "value", "format": ".4g"}, *tooltip],
            },
        },
    ]
    if samples:
        ticks = {"type": "tick", "color": _INK, "opacity": 0.5, "size": 8}
        layers.insert(2, {"data": {"values": samples}, "mark": ticks, "encoding": {"y": {"field": "sample", **value}}})
    return _spec(
        f"{title} over commits, with the noise around each level",
        data={"values": [{name: row[name] for name in row if name != "samples"} for row in rows]},
        height=200,
        encoding={"x": at},
        layer=layers,
    )


def peers(work: str, rows: list[Spec]) -> Spec:
    """Bars of one work's libraries, fastest first."""
    most = max(row["rate"] for row in rows)
    names = [row["library"] for row in rows]
    return _spec(
        f"{work}: values a second of each library",
        data={"values": rows},
        height=24 * len(rows),
        encoding={
            "y": {"field": "library", "type": "nominal", "sort": names, "title": None}
            | {"axis": {"grid": False, "ticks": False, "labelLimit": 215}},
            "x": {"field": "rate", "type": "quantitative", "title": None, "scale": {"domain": [0, 1.25 * most]}}
            | {"axis": None},
            "tooltip": [
                {"field": "library"},
                {"field": "rate", "title": "values per second", "format": ".3s"},
                {"field": "times", "title": "numbel / it", "format": ".3g"},
            ],
        },
        layer=[
            {
                "mark": {"type": "bar", "cornerRadiusEnd": 3},
                "encoding": {
                    "color": {"field": "whose", "type": "nominal", "legend": None}
                    | {"scale": {"domain": ["ours", "somebody else's"], "range": ["#2a8fd8", "#8a8f98"]}}
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "color": _INK},
                "encoding": {"text": {"field": "rate", "format": ".3s"}},
            },
        ],
    )


def roofline(points: list[Spec], read: float, philox: float) -> Spec:
    """Works below the roofs that reading memory and making random words put over them."""
    low, high = 1 / 48, 0.75
    roof = [{"intensity": x, "rate": x * read, "roof": "reading memory"} for x in (low, high)]
    layers: list[Spec] = []
    if philox:
        flat = [
            {"intensity": x, "rate": philox, "roof": "Philox words, where each category takes noise"}
            for x in (low, high)
        ]
        layers.append(_roof(flat))
    layers.append(_roof(roof if read else []))
    layers.append(
        {
            "data": {"values": points},
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {
                "color": {"field": "task", "type": "nominal", "title": None},
                "shape": {"field": "dtype", "type": "nominal", "title": None},
                "tooltip": [
                    {"field": "work"},
                    {"field": "rate", "title": "values per second", "format": ".3s"},
                    {"field": "bound", "title": "bound by"},
                ],
            },
        }
    )
    shared = {
        "x": {"field": "intensity", "type": "quantitative", "scale": {"type": "log", "domain": [low, high]}}
        | {"title": "categories per byte read or written", "axis": {"format": ".2~f"}},
        "y": {"field": "rate", "type": "quantitative", "scale": {"type": "log"}, "title": "values per second"}
        | {"axis": {"format": "~s"}},
    }
    return _spec(
        "Roofline: values a second against categories per byte, under the rates of memory and of Philox",
        height=360,
        encoding=shared,
        layer=layers,
    )


def _roof(rows: list[Spec]) -> Spec:
    return {
        "data": {"values": rows},
        "mark": {"type": "line", "stroke": _INK, "strokeWidth": 1.5},
        "encoding": {"strokeDash": {"field": "roof", "type": "nominal", "title": None}},
    }
