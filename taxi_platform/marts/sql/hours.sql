-- Trips by hour of the pick-up.
SELECT
    DATE_TRUNC('hour', pickup_datetime) AS pickup_hour,
    COUNT(*) AS trips,
    SUM(total_amount) AS total_amount,
    $file_month AS file_month,
    $file_version AS file_version
FROM trips
WHERE file_month = $file_month
GROUP BY 1
