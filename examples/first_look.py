"""A first look at the months that are loaded, as a marimo notebook: `make notebook` opens it.

It reads Parquet files of the lake alone, so no load is blocked and none blocks it. It also runs as a script.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="A first look at New York's taxi trips")

with app.setup:
    import altair as alt
    import marimo as mo

    from taxi_platform import load_mart, load_trips, months, zone_shapes


@app.cell(hide_code=True)
def title():
    mo.md("""
    # A first look

    Two ways to the data: **a mart** (`load_mart`) has the answer ready, **the trips** (`load_trips`) have every row.
    `months` says what is loaded. Change a cell, and the cells that use it follow.
    """)
    return


@app.cell
def datasets():
    loaded = [name for name in ("yellow", "green", "fhv", "fhvhv") if months(name)]
    nothing = "**No month is loaded yet.** Run `make demo` in a terminal, then run this cell again."
    mo.stop(not loaded, mo.md(nothing).callout("warn"))
    dataset = mo.ui.dropdown(loaded, loaded[0], label="Dataset")
    return (dataset,)


@app.cell
def month_of(dataset):
    month = mo.ui.dropdown(months(dataset.value), months(dataset.value)[-1], label="Month")
    mo.hstack([dataset, month], justify="start")
    return (month,)


@app.cell(hide_code=True)
def text_of_mart():
    mo.md("""
    ## From a mart: trips by day

    `load_mart` needs no counting: every ingest has counted the trips by day, zone, hour and payment already.
    """)
    return


@app.cell
def trips_by_day(dataset):
    columns = ["pickup_date", "trips"]
    days = load_mart("trips_by_day", dataset=dataset.value, where="in_month", columns=columns, as_="duckdb").df()
    by_day = (
        alt.Chart(days, title=f"{dataset.value}: trips by day", width=640, height=180)
        .mark_area(line=True, opacity=0.3)
        .encode(alt.X("pickup_date:T", title=None), alt.Y("trips:Q", title=None), tooltip=["pickup_date:T", "trips:Q"])
    )
    by_day
    return (by_day,)


@app.cell(hide_code=True)
def text_of_trips():
    mo.md("""
    ## From the trips: the hours of a month

    A month may have 20 million trips: with `as_="duckdb"` DuckDB counts them, and only the counts come here. Without
    `as_` you get a pandas data frame: `load_trips("yellow", "2024-01", columns=[…], where="trip_distance > 10")`.
    """)
    return


@app.cell
def trips_by_hour(dataset, month):
    trips = load_trips(dataset.value, month.value, columns=["pickup_datetime"], as_="duckdb")
    hours = trips.aggregate(
        "hour(pickup_datetime) AS hour, if(isodow(pickup_datetime) > 5, 'Sat, Sun', 'Mon–Fri') AS days, "
        "count(*) AS trips"
    )
    by_hour = (
        alt.Chart(hours.df(), title=f"{dataset.value} {month.value}: trips by hour", width=640, height=180)
        .mark_bar()
        .encode(
            alt.X("hour:O", title=None, axis=alt.Axis(labelAngle=0)),
            alt.Y("sum(trips):Q", title=None),
            alt.Color("days:N", title=None, scale=alt.Scale(range=["#3f7dbf", "#d99a00"])),
            tooltip=["hour:O", "days:N", "trips:Q"],
        )
    )
    by_hour
    return (by_hour,)


@app.cell(hide_code=True)
def text_of_map():
    mo.md("""
    ## A map: where trips begin

    `zone_shapes` has the shapes of the TLC's taxi zones; the mart `daily_zones` has the trips that begin in each.
    """)
    return


@app.cell
def map_of_zones(dataset, month):
    pickups = (
        load_mart("daily_zones", month.value, dataset=dataset.value, where="pickup_location_id IS NOT NULL")
        .groupby(["pickup_location_id", "pickup_zone", "pickup_borough"], dropna=False, as_index=False)["trips"]
        .sum()
        .astype({"pickup_location_id": int, "trips": int})
    )
    no_zones = f"The file of {dataset.value} {month.value} has no zones. Choose another month."
    mo.stop(pickups.empty, mo.md(no_zones).callout("warn"))
    zones = alt.Data(values=zone_shapes(), format=alt.TopoDataFormat(type="topojson", feature="zones"))
    found = alt.LookupData(pickups, "pickup_location_id", ["trips", "pickup_zone", "pickup_borough"])
    every_zone = alt.Chart().mark_geoshape(fill="#f4f5f7", stroke="#c4ccd6", strokeWidth=0.5)
    with_trips = (
        alt.Chart()
        .mark_geoshape(stroke="#c4ccd6", strokeWidth=0.5)
        .transform_lookup("properties.location_id", from_=found)
        .encode(
            alt.Color("trips:Q", title="Trips", scale=alt.Scale(type="log", scheme="blues")),
            tooltip=["pickup_zone:N", "pickup_borough:N", "trips:Q"],
        )
    )
    zone_map = (
        alt.layer(every_zone, with_trips, data=zones)
        .properties(title=f"{dataset.value} {month.value}: pick-ups by zone", width=640, height=560)
        .project("mercator")
    )
    zone_map
    return pickups, zone_map


@app.cell
def busiest_zones(dataset, month, pickups):
    busiest = pickups.sort_values("trips", ascending=False).head(10).reset_index(drop=True)
    mo.vstack([mo.md(f"The busiest zones of {dataset.value} {month.value}:"), busiest])
    return (busiest,)


if __name__ == "__main__":
    app.run()
