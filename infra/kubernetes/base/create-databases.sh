#!/bin/bash
# Run by PostgreSQL's image when its volume is new: a database and a role of its own for each
# service that keeps tables, so that none can read or migrate another's.
set -euo pipefail

create() {
    psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set=name="$1" --set=password="$2" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

create coordinator "$COORDINATOR_DB_PASSWORD"
create mlflow "$MLFLOW_DB_PASSWORD"
