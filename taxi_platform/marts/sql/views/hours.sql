-- Trips by hour of the pick-up.
SELECT
    dataset,
    pickup_hour,
    EXTRACT(YEAR FROM pickup_hour) = EXTRACT(YEAR FROM file_month)
        AND EXTRACT(MONTH FROM pickup_hour) = EXTRACT(MONTH FROM file_month) AS in_month,
    trips,
    total_amount,
    file_month,
    file_version
FROM all_hours
