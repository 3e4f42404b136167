#!/bin/sh
# Two roles that own nothing but their database: Dagster's, and the one of the trips. Run once, by PostgreSQL's image.
set -eu
psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
     --set dagster="$DAGSTER_PASSWORD" --set taxi="$TAXI_PASSWORD" <<'SQL'
CREATE ROLE dagster LOGIN PASSWORD :'dagster';
CREATE DATABASE dagster OWNER dagster;
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
CREATE ROLE taxi LOGIN PASSWORD :'taxi';
CREATE DATABASE trips OWNER taxi;
REVOKE ALL ON DATABASE trips FROM PUBLIC;
SQL
