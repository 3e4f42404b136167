-- Trips by day of the pick-up and type of payment, with the type's name.
SELECT
    mart.dataset,
    mart.pickup_date,
    EXTRACT(YEAR FROM mart.pickup_date) = EXTRACT(YEAR FROM mart.file_month)
        AND EXTRACT(MONTH FROM mart.pickup_date) = EXTRACT(MONTH FROM mart.file_month) AS in_month,
    mart.payment_type,
    labels.label AS payment,
    mart.trips,
    mart.tipped_trips,
    mart.tip_amount,
    mart.total_amount,
    mart.file_month,
    mart.file_version
FROM all_payments AS mart
LEFT JOIN payment_types AS labels ON labels.code = mart.payment_type
