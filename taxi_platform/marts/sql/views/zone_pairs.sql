-- Trips by the zones of pick-up and drop-off, with their names.
SELECT
    mart.dataset,
    mart.pickup_location_id,
    pickup.borough AS pickup_borough,
    pickup.zone AS pickup_zone,
    mart.dropoff_location_id,
    dropoff.borough AS dropoff_borough,
    dropoff.zone AS dropoff_zone,
    mart.trips,
    mart.miles,
    mart.seconds,
    mart.total_amount,
    mart.file_month,
    mart.file_version
FROM all_zone_pairs AS mart
LEFT JOIN taxi_zones AS pickup ON pickup.location_id = mart.pickup_location_id
LEFT JOIN taxi_zones AS dropoff ON dropoff.location_id = mart.dropoff_location_id
