-- Trips by day of the pick-up.
SELECT
    dataset,
    pickup_date,
    EXTRACT(YEAR FROM pickup_date) = EXTRACT(YEAR FROM file_month)
        AND EXTRACT(MONTH FROM pickup_date) = EXTRACT(MONTH FROM file_month) AS in_month,
    SUM(trips) AS trips,
    SUM(passengers) AS passengers,
    SUM(miles) AS miles,
    SUM(seconds) AS seconds,
    SUM(fare_amount) AS fare_amount,
    SUM(tip_amount) AS tip_amount,
    SUM(tolls_amount) AS tolls_amount,
    SUM(total_amount) AS total_amount,
    file_month,
    file_version
FROM all_daily_zones
GROUP BY dataset, pickup_date, file_month, file_version
