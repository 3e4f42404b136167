-- Trips by day and zone of the pick-up, with the zone's name.
SELECT
    mart.dataset,
    mart.pickup_date,
    EXTRACT(YEAR FROM mart.pickup_date) = EXTRACT(YEAR FROM mart.file_month)
        AND EXTRACT(MONTH FROM mart.pickup_date) = EXTRACT(MONTH FROM mart.file_month) AS in_month,
    mart.pickup_location_id,
    zones.borough AS pickup_borough,
    zones.zone AS pickup_zone,
    mart.trips,
    mart.passengers,
    mart.miles,
    mart.seconds,
    mart.fare_amount,
    mart.tip_amount,
    mart.tolls_amount,
    mart.total_amount,
    mart.file_month,
    mart.file_version
FROM all_daily_zones AS mart
LEFT JOIN taxi_zones AS zones ON zones.location_id = mart.pickup_location_id
