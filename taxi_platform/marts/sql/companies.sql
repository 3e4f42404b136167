-- Trips by licensed company.
SELECT
    hvfhs_license_num,
    COUNT(*) AS trips,
    $file_month AS file_month,
    $file_version AS file_version
FROM trips
WHERE file_month = $file_month
GROUP BY 1
