-- Trips by the zones of pick-up and drop-off.
SELECT
    pickup_location_id,
    dropoff_location_id,
    COUNT(*) AS trips,
    SUM(CASE WHEN ABS(trip_distance) < 1e8 THEN CAST(FLOOR(trip_distance * 100 + 0.5) AS BIGINT) END)
        * CAST(0.01 AS DECIMAL(3, 2)) AS miles,
    SUM(DATE_DIFF('second', pickup_datetime, dropoff_datetime)) AS seconds,
    SUM(total_amount) AS total_amount,
    $file_month AS file_month,
    $file_version AS file_version
FROM trips
WHERE file_month = $file_month
GROUP BY 1, 2
