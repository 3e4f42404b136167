-- Trips by day and zone of the pick-up.
SELECT
    CAST(pickup_datetime AS DATE) AS pickup_date,
    pickup_location_id,
    COUNT(*) AS trips,
    SUM(passenger_count) AS passengers,
    -- Whole numbers of hundredths add up to the same in any order, in every engine; floats do not.
    SUM(CASE WHEN ABS(trip_distance) < 1e8 THEN CAST(FLOOR(trip_distance * 100 + 0.5) AS BIGINT) END)
        * CAST(0.01 AS DECIMAL(3, 2)) AS miles,
    SUM(DATE_DIFF('second', pickup_datetime, dropoff_datetime)) AS seconds,
    SUM(fare_amount) AS fare_amount,
    SUM(tip_amount) AS tip_amount,
    SUM(tolls_amount) AS tolls_amount,
    SUM(total_amount) AS total_amount,
    $file_month AS file_month,
    $file_version AS file_version
FROM trips
WHERE file_month = $file_month
GROUP BY 1, 2
