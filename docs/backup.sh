#!/usr/bin/env bash
# Back up a chatserver, and restore it: the database and the files. docs/backup.md explains.
#
#   backup.sh backup DIRECTORY     makes DIRECTORY; a directory that is there is a whole backup
#   backup.sh restore DIRECTORY    into the database of MIGRATOR_DATABASE_URL, which must be empty
#
# From the environment: MIGRATOR_DATABASE_URL, and the server's other settings (DATABASE_URL,
# FILES_DIR or S3_BUCKET, SECRET_KEYS, KEY_PEPPER, …). Needs pg_dump and pg_restore of PostgreSQL's
# own version or a newer one, and chatserver (or what CHATSERVER names, such as `docker compose exec -T
# web chatserver`), which has the files: of a directory or of a bucket.
set -euo pipefail
umask 077
CHATSERVER=${CHATSERVER:-chatserver}

die() {
    echo "$*" >&2
    exit 1
}

# The password goes by the environment: command lines can be read by everyone on the machine.
connect() {
    local url=${MIGRATOR_DATABASE_URL:?is not set: the database as the role that owns it}
    local scheme=${url%%://*} rest=${url#*://}
    local user=${rest%%@*} password
    if [[ $rest == *@* && $user == *:* ]]; then
        password=${user#*:}
        password=${password//\\/\\\\}
        PGPASSWORD=$(printf '%b' "${password//%/\\x}")
        export PGPASSWORD
        url="$scheme://${user%%:*}@${rest#*@}"
    fi
    DATABASE=$url
}

backup() {
    local to=$1
    [[ ! -e $to ]] || die "$to is there already. Name another directory."
    rm -rf "$to.part"
    mkdir -p "$to.part"
    pg_dump --dbname="$DATABASE" --format=directory --jobs="${JOBS:-2}" --no-owner --no-privileges \
        --file="$to.part/database"
    # After the database: every file that a row of the dump names is in the store by now.
    $CHATSERVER files save - >"$to.part/files.tar"
    mv "$to.part" "$to"
    echo "$to holds the database and the files. SECRET_KEYS and KEY_PEPPER are not in it: keep them apart."
}

restore() {
    local from=$1 found
    [[ -d $from/database ]] || die "$from is no backup of this script: it has no directory database."
    found=$(psql --dbname="$DATABASE" --no-psqlrc --tuples-only --no-align \
        --command="select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'")
    [[ $found == 0 ]] || die "The database has $found tables. Restore into an empty one: createdb, then create extension vector."
    pg_restore --dbname="$DATABASE" --jobs="${JOBS:-2}" --no-owner --no-privileges --no-comments \
        --exit-on-error "$from/database"
    # What was written after the backup is gone. Clients that saw it are told, and load anew.
    psql --dbname="$DATABASE" --no-psqlrc --quiet --tuples-only --set=ON_ERROR_STOP=1 \
        --output=/dev/null --command="select cluster_generation_raise()"
    if [[ -d $from/files ]]; then
        # Of a bucket, by this script's first version.
        tar --create --directory="$from/files" . | $CHATSERVER files load -
    elif [[ -f $from/files.tar ]]; then
        $CHATSERVER files load - <"$from/files.tar"
    fi
    $CHATSERVER migrate
    $CHATSERVER secrets check
}

[[ $# == 2 ]] || die "Usage: backup.sh backup DIRECTORY | backup.sh restore DIRECTORY"
connect
case $1 in
backup) backup "$2" ;;
restore) restore "$2" ;;
*) die "Usage: backup.sh backup DIRECTORY | backup.sh restore DIRECTORY" ;;
esac
