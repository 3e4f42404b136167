-- Each company's share of a month's trips.
WITH months AS (
    SELECT file_month AS month, dataset, dataset AS company, CAST(SUM(trips) AS BIGINT) AS trips
    FROM all_hours
    WHERE dataset <> 'fhvhv'  -- its trips are those of its companies
    GROUP BY file_month, dataset
    UNION ALL
    SELECT file_month AS month, dataset, hvfhs_license_num AS company, trips
    FROM all_companies
),
totals AS (
    SELECT month, SUM(trips) AS trips, COUNT(DISTINCT dataset) AS datasets FROM months GROUP BY month
)
SELECT
    months.month,
    months.dataset,
    months.company,
    labels.label AS company_name,
    months.trips,
    CAST(months.trips AS DOUBLE) / CAST(totals.trips AS DOUBLE) AS share,
    totals.datasets
FROM months
JOIN totals ON totals.month = months.month
LEFT JOIN companies AS labels ON labels.code = months.company
