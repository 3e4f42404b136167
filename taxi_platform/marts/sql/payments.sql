-- Trips by day of the pick-up and type of payment.
SELECT
    CAST(pickup_datetime AS DATE) AS pickup_date,
    payment_type,
    COUNT(*) AS trips,
    COUNT(CASE WHEN tip_amount > 0 THEN 1 END) AS tipped_trips,
    SUM(tip_amount) AS tip_amount,
    SUM(total_amount) AS total_amount,
    $file_month AS file_month,
    $file_version AS file_version
FROM trips
WHERE file_month = $file_month
GROUP BY 1, 2
