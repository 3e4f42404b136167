-- What the cleaning of each month found.
SELECT dataset, measure, name, rows, file_month, file_version FROM all_quality
